//! Which variables and arguments look as if they held a secret.
//!
//! In: an environment and a command line, as the kernel keeps them. Out: names.
//! Invariant: a value is looked at and never given out; what is returned is the name alone.
//! Not here: where the bytes come from (`anatomy`).
//!
//! A guess, meant to be read by people: better a name too many than one that is missed. What the
//! program has read from files or was sent is in the image as well, and has no name to go by.

/// Names of variables and arguments that look like secrets, in the order in which they are met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Secrets {
    /// Variables of the environment.
    pub(crate) variables: Vec<String>,
    /// Arguments: `-Ddb.password`, `--token`.
    pub(crate) arguments: Vec<String>,
}

impl Secrets {
    /// Looks through blocks of strings, each ended by NUL: `K=V` and arguments.
    pub(crate) fn among(environment: &[u8], arguments: &[u8]) -> Self {
        let mut found = Self::default();
        for line in strings(environment) {
            let (name, value) = line.split_once('=').unwrap_or((&line, ""));
            if !value.is_empty() && (sounds_secret(name) || holds_password(value)) {
                add(&mut found.variables, name);
            }
        }
        let mut next_is = None;
        for argument in strings(arguments) {
            if let Some(name) = next_is.take()
                && !argument.starts_with('-')
            {
                add(&mut found.arguments, name);
            }
            let option = argument.starts_with('-');
            match argument.split_once('=') {
                Some((name, value))
                    if !value.is_empty() && (sounds_secret(name) || holds_password(value)) =>
                {
                    add(&mut found.arguments, name);
                }
                None if option && sounds_secret(&argument) => next_is = Some(argument),
                // A password in a URL has no name: its place will do.
                None if !option && holds_password(&argument) => {
                    add(&mut found.arguments, "an argument that is a URL with a password");
                }
                _ => {}
            }
        }
        found
    }
}

fn add(names: &mut Vec<String>, name: impl AsRef<str>) {
    let name = name.as_ref();
    if !names.iter().any(|known| known == name) {
        names.push(name.to_owned());
    }
}

fn strings(block: &[u8]) -> impl Iterator<Item = String> {
    let strings = block.split(|&byte| byte == 0).filter(|string| !string.is_empty());
    strings.map(|string| String::from_utf8_lossy(string).into_owned())
}

/// Words that name a secret wherever they stand in a name.
const ANYWHERE: [&str; 9] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "credential",
    "apikey",
    "accesskey",
    "privatekey",
    "connectionstring",
];

/// Words that do so only as a word of their own: `TOKEN`, not `TOKENIZER_MODE`.
const AS_A_WORD: [&str; 13] = [
    "pass", "pwd", "pw", "token", "tokens", "auth", "jwt", "cookie", "dsn", "bearer", "key",
    "keys", "pat",
];

/// Names that sound like it, and are known to be harmless.
const HARMLESS: [&str; 6] = [
    "PWD",
    "OLDPWD",
    "SSH_AUTH_SOCK",
    "GPG_KEY",
    "XAUTHORITY",
    "-Djava.security.auth.login.config",
];

fn sounds_secret(name: &str) -> bool {
    if HARMLESS.contains(&name) {
        return false;
    }
    let words = words(name);
    let joined = words.concat();
    let path = words.last().is_some_and(|last| ["file", "path", "dir", "sock"].contains(&&**last));
    !path
        && (ANYWHERE.iter().any(|secret| joined.contains(secret))
            || words.iter().any(|word| AS_A_WORD.contains(&word.as_str())))
}

/// The words of a name, in lower case: `-Dspring.dataSource.dbPassword` has five.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before_was_lower = false;
    let name = name.strip_prefix("-D").unwrap_or(name);
    for character in name.chars() {
        let border = !character.is_alphanumeric() || before_was_lower && character.is_uppercase();
        if border && words.last().is_some_and(|word| !word.is_empty()) {
            words.push(String::new());
        }
        before_was_lower = character.is_lowercase();
        if character.is_alphanumeric()
            && let Some(word) = words.last_mut()
        {
            word.extend(character.to_lowercase());
        }
    }
    words
}

/// Whether a value is a URL with a password, `scheme://user:password@host`, or a key in PEM.
fn holds_password(value: &str) -> bool {
    let url = || {
        let (_, rest) = value.split_once("://")?;
        let authority = rest.split(['/', '?', '#']).next()?;
        let (user, _) = authority.rsplit_once('@')?;
        let (_, password) = user.split_once(':')?;
        Some(!password.is_empty())
    };
    value.contains("PRIVATE KEY-----") || url().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn among(environment: &[&str], arguments: &[&str]) -> Secrets {
        let block = |strings: &[&str]| strings.iter().flat_map(|s| [s, "\0"]).collect::<String>();
        Secrets::among(block(environment).as_bytes(), block(arguments).as_bytes())
    }

    #[test]
    fn names_that_look_like_secrets_are_told_and_values_never() {
        let environment = [
            "PATH=/bin",
            "DB_PASSWORD=hunter2",
            "GITHUB_TOKEN=hunter2",
            "AWS_SECRET_ACCESS_KEY=hunter2",
            "DATABASE_URL=postgres://app:hunter2@db/app",
            "TLS_KEY=-----BEGIN PRIVATE KEY-----hunter2",
            "apiKey=hunter2",
            "DSN=hunter2",
            "DB_PASSWORD=hunter2",
        ];
        let arguments = [
            "java",
            "-Dspring.datasource.password=hunter2",
            "-Dkeystore.storePassword=hunter2",
            "--api-token",
            "hunter2",
            "--password=hunter2",
            "jdbc:mysql://root:hunter2@db/",
        ];
        let found = among(&environment, &arguments);
        assert_eq!(
            found.variables,
            [
                "DB_PASSWORD",
                "GITHUB_TOKEN",
                "AWS_SECRET_ACCESS_KEY",
                "DATABASE_URL",
                "TLS_KEY",
                "apiKey",
                "DSN"
            ]
        );
        assert_eq!(
            found.arguments,
            [
                "-Dspring.datasource.password",
                "-Dkeystore.storePassword",
                "--api-token",
                "--password",
                "an argument that is a URL with a password"
            ]
        );
        assert!(!format!("{found:?}").contains("hunter2"));
    }

    #[test]
    fn what_only_sounds_like_it_is_passed_over() {
        let environment = [
            "PWD=/srv",
            "OLDPWD=/",
            "SSH_AUTH_SOCK=/run/agent",
            "TOKENIZER_MODE=fast",
            "KEYBOARD=de",
            "PASSWORD=",
            "DB_PASSWORD_FILE=/run/secrets/db",
            "HOMEPAGE=https://example.org/a:b@c",
            "AUTHOR=x",
        ];
        let arguments = ["java", "-Dauthor=x", "--monkey", "-Dcache.keyspace=a", "--token", "--x"];
        assert_eq!(among(&environment, &arguments), Secrets::default());
    }

    #[test]
    fn bytes_of_any_kind_do_no_harm() {
        let found = Secrets::among(b"\0\0=\0\xff=\xfe\0=x", b"\0-\0--\0=\0");
        assert_eq!(found, Secrets::default());
    }
}
