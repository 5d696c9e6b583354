//! The little of PostgreSQL's protocol that it takes to see that a server is there, and to tell it something.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(5);

/// A connection that has been let in.
pub(super) struct Session {
    stream: TcpStream,
    /// The server's version, as it says it.
    pub(super) version: String,
}

/// Connects: `Err` says why it is not let in.
pub(super) fn connect(address: impl ToSocketAddrs, user: &str) -> Result<Session, String> {
    let wrong = |error: std::io::Error| error.to_string();
    let address = address.to_socket_addrs().map_err(wrong)?.next().ok_or("no such host")?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(wrong)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(wrong)?;
    let mut hello = 196_608_u32.to_be_bytes().to_vec();
    for text in ["user", user, "database", "postgres"] {
        hello.extend(text.as_bytes());
        hello.push(0);
    }
    hello.push(0);
    stream.write_all(&framed(&hello)).map_err(wrong)?;
    let mut session = Session { stream, version: String::new() };
    session.until_ready()?;
    Ok(session)
}

impl Session {
    /// Runs statements whose answers nobody needs.
    pub(super) fn run(&mut self, statements: &str) -> Result<(), String> {
        let mut query = statements.as_bytes().to_vec();
        query.push(0);
        let message = [b"Q".as_slice(), &framed(&query)].concat();
        self.stream.write_all(&message).map_err(|error| error.to_string())?;
        self.until_ready()
    }

    fn until_ready(&mut self) -> Result<(), String> {
        loop {
            let mut head = [0; 5];
            self.stream.read_exact(&mut head).map_err(|error| error.to_string())?;
            let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
            let mut body =
                vec![0; length.checked_sub(4).filter(|length| *length < 1 << 20).ok_or("no message")?];
            self.stream.read_exact(&mut body).map_err(|error| error.to_string())?;
            let texts = || String::from_utf8_lossy(&body).into_owned();
            match head[0] {
                b'Z' => return Ok(()),
                b'E' => return Err(texts().replace('\0', " ")),
                b'R' if body != [0; 4] => return Err("it asks for a password".into()),
                b'S' => {
                    if let Some(version) = texts().strip_prefix("server_version\0") {
                        version.trim_end_matches('\0').clone_into(&mut self.version);
                    }
                }
                _ => {}
            }
        }
    }
}

fn framed(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    [&length.to_be_bytes(), body].concat()
}
