//! What a web service does with requests of all kinds: the same in a copy as in one just started.
//!
//! In: a service that answers. Out: its answers, without what the time or chance puts into them.
//! Invariant: it knows nothing of what is asked: whatever a cold one answers is right.

use crate::frameworks::Probed;

/// The answer to each of [`REQUESTS`].
type Behaviour = Vec<String>;

/// What is asked, each on a connection of its own, which the last request of it ends.
const REQUESTS: [&str; 12] = [
    "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    "HEAD / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    "OPTIONS / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    "GET /?name=%C3%A9&name=2 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    // Two on one connection.
    "GET / HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    // What is not there, for a program and for a person.
    "GET /no/such/page HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\nConnection: close\r\n\r\n",
    "GET /no/such/page HTTP/1.1\r\nHost: localhost\r\nAccept: text/html\r\nConnection: close\r\n\r\n",
    // Other representations and methods than there are.
    "GET / HTTP/1.1\r\nHost: localhost\r\nAccept: image/png\r\nConnection: close\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 7\r\nConnection: close\r\n\r\n{\"a\":1}",
    "DELETE / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    // Paths that lead out, and what is no HTTP.
    "GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: local host\r\nBad\u{0} Header\r\nConnection: close\r\n\r\n",
];

/// Asks all there is to ask.
pub(crate) fn of(probed: &mut Probed) -> Behaviour {
    let ask = |request: &&str| {
        probed.order(&format!("exchange {}", serde_json::to_string(request).unwrap()));
        without_time(probed.told("answer")["answer"].as_str().unwrap())
    };
    let all: Behaviour = REQUESTS.iter().map(ask).collect();
    assert!(all[0].starts_with("HTTP/1.1 200"), "{}", all[0]);
    all
}

/// Asks again, of a copy.
pub(crate) fn are_those_of(probed: &mut Probed, expected: &Behaviour) {
    for ((request, now), before) in REQUESTS.iter().zip(of(probed)).zip(expected) {
        assert_eq!(now, *before, "to {request:?}");
    }
}

/// An answer without the header that tells the date, and with `#` for every digit but those of the status, as
/// errors tell the time.
fn without_time(answer: &str) -> String {
    let mut text = String::new();
    for line in answer.split_inclusive('\n') {
        if line.starts_with("HTTP/") {
            text.push_str(line);
        } else if !line.to_ascii_lowercase().starts_with("date:") {
            text.extend(line.chars().map(|it| if it.is_ascii_digit() { '#' } else { it }));
        }
    }
    text
}
