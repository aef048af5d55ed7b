//! Asks a daemon's HTTP API: one GET, with a deadline and a bound on the answer. Plain HTTP only: the API listens on
//! loopback, and whoever puts it on a network puts a proxy before it.

use super::exit::CliError;
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// Most bytes of an answer: a plan of 50,000 resources has about 30 MB.
const MOST: u64 = 256 << 20;

/// Gets a document.
pub fn get(server: &str, path: &str, timeout: Duration) -> Result<Vec<u8>, CliError> {
    let host = server.strip_prefix("http://").map(|s| s.trim_end_matches('/')).ok_or_else(|| {
        CliError::usage(format!("`{server}` is not an address of a daemon")).hint("write http://HOST:PORT")
    })?;
    if host.is_empty() || !host.chars().all(|c| c.is_ascii_alphanumeric() || "-._:[]".contains(c)) {
        return Err(CliError::usage(format!("`{server}` is not an address of a daemon")).hint("write http://HOST:PORT"));
    }
    let answer = ask(host, path, timeout).map_err(|error| {
        CliError::failed(format!("the daemon at {server} does not answer"))
            .caused_by(error)
            .hint("give its address with --server, or its state folder with --state")
    })?;
    let (status, body) =
        parse(&answer).ok_or_else(|| CliError::failed(format!("what answers at {server} does not speak HTTP")))?;
    if status != 200 {
        let what = String::from_utf8_lossy(body);
        return Err(CliError::failed(format!("the daemon at {server} answered {status} for {path}: {}", what.trim())));
    }
    Ok(body.to_vec())
}

/// For an answer that cannot be read.
pub fn not_understood(server: &str, what: &str, error: serde_json::Error) -> CliError {
    CliError::failed(format!("what {server} answered is not a {what}"))
        .caused_by(error)
        .hint("is it a Drover daemon of this version?")
}

fn ask(host: &str, path: &str, timeout: Duration) -> std::io::Result<Vec<u8>> {
    let deadline = Instant::now() + timeout;
    let left = || deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    // A port at the end, or 80: `[::1]` ends with a bracket and has none.
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let address = if has_port { host.to_owned() } else { format!("{host}:80") };
    let mut last = std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address");
    for candidate in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&candidate, left()) {
            Ok(mut stream) => {
                stream.set_write_timeout(Some(left()))?;
                // HTTP/1.0: the answer ends with the connection and comes in no pieces.
                write!(stream, "GET {path} HTTP/1.0\r\nHost: {host}\r\nAccept: application/json\r\n\r\n")?;
                let mut answer = Vec::new();
                let mut buffer = [0; 1 << 14];
                loop {
                    if Instant::now() >= deadline {
                        return Err(std::io::Error::new(std::io::ErrorKind::TimedOut, "it took too long"));
                    }
                    stream.set_read_timeout(Some(left()))?;
                    match stream.read(&mut buffer)? {
                        0 => return Ok(answer),
                        n => answer.extend_from_slice(&buffer[..n]),
                    }
                    if answer.len() as u64 > MOST {
                        return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, "the answer is too long"));
                    }
                }
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn parse(answer: &[u8]) -> Option<(u16, &[u8])> {
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some((status, &answer[end + 4..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn answering(text: &'static [u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // The whole request: closing with some of it unread would reset the connection and take the answer along.
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
                request.push(byte[0]);
            }
            let _ = stream.write_all(text);
        });
        address
    }

    #[test]
    fn an_answer_is_its_body() {
        let server = answering(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{}");
        assert_eq!(get(&server, "/x", Duration::from_secs(5)).unwrap(), b"{}");
    }

    #[test]
    fn what_is_no_answer_is_an_error_that_says_so() {
        let within = |server: String, limit| get(&server, "/x", limit).unwrap_err().text();
        let text = |server| within(server, Duration::from_secs(20));
        assert!(text(answering(b"HTTP/1.1 404 Not Found\r\n\r\nno such page")).contains("answered 404"));
        assert!(text(answering(b"SSH-2.0-x\r\n\r\n")).contains("does not speak HTTP"));
        assert!(text("https://127.0.0.1".into()).contains("not an address of a daemon"));
        assert!(text("http://a\r\nb".into()).contains("not an address of a daemon"));
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let silent = format!("http://{}", silent.local_addr().unwrap());
        assert!(within(silent, Duration::from_millis(300)).contains("does not answer"));
    }
}
