//! GET over HTTP/1.0, which is enough to query a server on this machine.

use std::{
    fmt::Write as _,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// The largest answer that is read, in bytes.
const LARGEST: u64 = 256 << 20;

/// An answer.
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// Requests a path. An HTTP/1.0 answer ends with its connection, and has no chunks.
pub(crate) fn get(address: SocketAddr, path: &str, timeout: Duration) -> io::Result<Response> {
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\nAccept: application/json\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(LARGEST).read_to_string(&mut answer)?;
    parse(answer).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP"))
}

fn parse(mut answer: String) -> Option<Response> {
    let head = answer.find("\r\n\r\n")?;
    let status = answer[..head].split_whitespace().nth(1)?.parse().ok()?;
    answer.drain(..head + 4);
    Some(Response { status, body: answer })
}

/// A path with its parameters.
pub(crate) fn path_with(path: &str, parameters: &[(&str, &str)]) -> String {
    let mut out = path.to_owned();
    for (at, (name, value)) in parameters.iter().enumerate() {
        let _ = write!(out, "{}{name}=", if at == 0 { '?' } else { '&' });
        for byte in value.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte.into()),
                _ => {
                    let _ = write!(out, "%{byte:02X}");
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_escaped() {
        let path = path_with("/api/v1/query", &[("query", r#"sum(a{b="c"}) + 1"#), ("time", "1.5")]);
        assert_eq!(path, "/api/v1/query?query=sum%28a%7Bb%3D%22c%22%7D%29%20%2B%201&time=1.5");
    }

    #[test]
    fn an_answer_has_a_status_and_a_body() {
        let response =
            parse("HTTP/1.0 422 Unprocessable\r\nA: b\r\n\r\n{\r\n\r\n}".to_owned()).expect("HTTP");
        assert_eq!((response.status, response.body.as_str()), (422, "{\r\n\r\n}"));
        assert!(parse("SSH-2.0-OpenSSH".to_owned()).is_none());
    }
}
