//! A closed loop: one connection, the next request when the answer is there.
//!
//! In: a question and a number of requests. Out: rates over the first requests and over all.
//! Invariant: a wrong answer is a failure and never counts towards a rate.
//! Not here: open-loop load at a fixed rate.

use crate::clock::monotonic_ns;
use crate::http::{Connection, Question};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// How many requests the rate "just after the start" covers.
pub const FIRST_REQUESTS: usize = 200;

/// First requests over which a rate is told, as far as there were so many.
const FIRST_OF: [usize; 6] = [FIRST_REQUESTS, 1000, 2000, 5000, 10_000, 20_000];

/// A load run stops after this many failures one after another: the service is gone.
const HOPELESS_AFTER: u32 = 20;

/// What came of a load run.
#[derive(Clone, Debug)]
pub struct LoadReport {
    /// Requests answered correctly.
    pub answered: usize,
    /// Requests that failed or were answered wrongly.
    pub failures: usize,
    /// Connections opened after the first. (Tomcat closes one after 100 requests.)
    pub reconnects: usize,
    /// Wall time of the whole run, in seconds.
    pub seconds: f64,
    /// Time from the start to the end of each of the first requests, in nanoseconds.
    first_ns: Vec<u64>,
    /// Time of each request, in nanoseconds.
    each_ns: Vec<u64>,
}

impl LoadReport {
    /// Correct answers per second over the whole run.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts of requests are far below 2^53")]
    pub fn rate(&self) -> f64 {
        if self.seconds > 0.0 { self.answered as f64 / self.seconds } else { 0.0 }
    }

    /// Correct answers per second over the first `requests`; `None` where there were fewer.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts of requests are far below 2^53")]
    pub fn first_rate(&self, requests: usize) -> Option<f64> {
        let end = *self.first_ns.get(requests.checked_sub(1)?)?;
        (end > 0).then(|| requests as f64 / (end as f64 / 1e9))
    }

    /// The report as the prober prints it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut sorted = self.each_ns.clone();
        sorted.sort_unstable();
        let microseconds = |share: usize| {
            sorted.get((sorted.len().saturating_sub(1)) * share / 100).map(|ns| ns / 1000)
        };
        let first_rates: Map<String, Value> = FIRST_OF
            .iter()
            .filter_map(|&of| Some((of.to_string(), json!(self.first_rate(of)?))))
            .collect();
        json!({
            "event": "load",
            "answered": self.answered,
            "failures": self.failures,
            "reconnects": self.reconnects,
            "seconds": self.seconds,
            "rate": self.rate(),
            "first_200_rate": self.first_rate(FIRST_REQUESTS),
            "first_rates": first_rates,
            "p50_us": microseconds(50),
            "p99_us": microseconds(99),
            "max_us": sorted.last().map(|ns| ns / 1000),
        })
    }
}

/// Asks `requests` times over one connection, which is closed at the end.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "the result is for people")]
pub fn run(question: &Question, requests: usize, patience: Duration) -> LoadReport {
    let mut report = LoadReport {
        answered: 0,
        failures: 0,
        reconnects: 0,
        seconds: 0.0,
        first_ns: Vec::with_capacity(requests),
        each_ns: Vec::with_capacity(requests),
    };
    let mut connection: Option<Connection> = None;
    let mut connections = 0;
    let mut failures_in_a_row = 0;
    let start_ns = monotonic_ns();
    while report.answered + report.failures < requests && failures_in_a_row < HOPELESS_AFTER {
        let asked_ns = monotonic_ns();
        let open = match connection.take() {
            Some(open) => Ok(open),
            None => {
                connections += 1;
                question.connect(patience)
            }
        };
        let outcome = open.and_then(|mut open| open.ask(question).map(|answer| (open, answer)));
        match outcome {
            Ok((open, answer)) if question.is_answered_by(&answer) => {
                failures_in_a_row = 0;
                report.answered += 1;
                report.first_ns.push(answer.complete_ns - start_ns);
                report.each_ns.push(answer.complete_ns - asked_ns);
                connection = answer.keeps_alive.then_some(open);
            }
            _ => {
                failures_in_a_row += 1;
                report.failures += 1;
            }
        }
    }
    report.seconds = (monotonic_ns() - start_ns) as f64 / 1e9;
    report.reconnects = connections.max(1) - 1;
    report
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpListener};
    use std::thread;

    /// Serves for ever, closing each connection after `per_connection` answers.
    fn serve(per_connection: usize, body: &'static str) -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = [0; 1024];
                for turn in 1..=per_connection {
                    if !matches!(stream.read(&mut request), Ok(1..)) {
                        break;
                    }
                    let close = if turn == per_connection { "Connection: close\r\n" } else { "" };
                    let answer = format!(
                        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{close}\r\n{body}",
                        body.len()
                    );
                    stream.write_all(answer.as_bytes()).unwrap();
                }
            }
        });
        port
    }

    #[test]
    fn counts_answers_and_reconnects() {
        let question = Question::new(serve(100, "hello"), "/", "hello");
        let report = run(&question, 250, Duration::from_secs(5));
        assert_eq!((report.answered, report.failures, report.reconnects), (250, 0, 2));
        assert!(report.rate() > 0.0);
        assert!(report.first_rate(FIRST_REQUESTS).unwrap() > 0.0);
        assert!(report.first_rate(251).is_none());
        let told = report.to_json()["first_rates"].as_object().unwrap().clone();
        assert_eq!(told.keys().collect::<Vec<_>>(), ["200"]);
    }

    #[test]
    fn wrong_answers_are_failures() {
        let question = Question::new(serve(5, "good bye"), "/", "hello");
        let report = run(&question, 10, Duration::from_secs(5));
        assert_eq!((report.answered, report.failures), (0, 10));
        assert!(report.to_json()["first_200_rate"].is_null());
    }

    #[test]
    fn gives_up_when_nobody_listens() {
        let port = {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            listener.local_addr().unwrap().port()
        };
        let report = run(&Question::new(port, "/", "hello"), 100_000, Duration::from_secs(5));
        assert_eq!(report.answered, 0);
        assert!(report.failures < 100);
    }
}
