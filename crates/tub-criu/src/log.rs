//! What CRIU's log says went wrong.
//!
//! In: its text. Out: the last errors, without their times. Pure.

/// How many are worth telling: the first is seldom the cause, and the last seldom the effect.
const MOST: usize = 5;

/// Said in every run without CAP_SYS_RESOURCE, and harmless.
const HARMLESS: [&str; 2] = ["Can't setup RLIMIT_NOFILE for self", "kdat cache"];

/// The last errors of a log, in its order.
///
/// A line is `(00.071310) Error (criu/files-reg.c:1842): Can't …`; the part in the middle names
/// CRIU's own source, which its users know to search for.
pub(crate) fn last_errors(log: &str) -> Vec<String> {
    let mut found: Vec<String> = log.lines().filter_map(error).collect();
    found.dedup();
    let surplus = found.len().saturating_sub(MOST);
    found.drain(..surplus);
    found
}

fn error(line: &str) -> Option<String> {
    let (before, after) = line.split_once("Error (")?;
    // Only a time and a process id may stand before it.
    if before.chars().any(|c| !(c.is_ascii_digit() || " ().:".contains(c))) {
        return None;
    }
    let (place, words) = after.split_once("):")?;
    let words = words.trim();
    let harmless = HARMLESS.iter().any(|known| words.contains(known));
    // What it repeats from the process is anybody's text.
    let clean = words.chars().filter(|c| !c.is_control()).collect::<String>();
    (!harmless && !words.is_empty()).then(|| format!("{clean} ({place})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_without_their_times() {
        let log = "(00.064343) Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: \
                   Operation not permitted\n\
                   (00.070000) Warn  (criu/x.c:1): not this\n\
                   (00.071310) Error (criu/sockets.c:133): sockets: Can't get 1:16 opt\n\
                   (00.071999)     42: Error (criu/cr-dump.c:1635): Dump files failed\n";
        assert_eq!(
            last_errors(log),
            [
                "sockets: Can't get 1:16 opt (criu/sockets.c:133)",
                "Dump files failed (criu/cr-dump.c:1635)"
            ]
        );
        assert_eq!(last_errors(""), [""; 0]);
        assert_eq!(last_errors("path says Error (x): y\n"), [""; 0]);
    }

    #[test]
    fn only_the_last_ones_are_told() {
        let log: String =
            (0..20).map(|n| format!("(00.1) Error (criu/a.c:{n}): failure {n}\n")).collect();
        let told = last_errors(&log);
        assert_eq!(told.len(), MOST);
        assert_eq!(told[4], "failure 19 (criu/a.c:19)");
    }
}
