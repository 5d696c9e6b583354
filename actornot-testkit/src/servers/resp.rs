//! The little of Redis's protocol that it takes to make a cluster.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(5);

/// Sends one command on a connection of its own, and returns what it answers.
pub(super) fn ask(address: impl ToSocketAddrs, command: &[&str]) -> Result<String, String> {
    exchange(address, command).map_err(|error| error.to_string())
}

fn exchange(address: impl ToSocketAddrs, command: &[&str]) -> std::io::Result<String> {
    let address = address.to_socket_addrs()?.next().ok_or(std::io::ErrorKind::NotFound)?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = format!("*{}\r\n", command.len());
    for word in command {
        text.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    stream.write_all(text.as_bytes())?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let line = line.trim_end();
    match line.split_at_checked(1) {
        Some(("+" | ":", rest)) => Ok(rest.to_owned()),
        Some(("$", length)) => {
            let length = length.parse().map_err(|_| std::io::Error::other("no length"))?;
            let mut body = String::new();
            reader.take(length).read_to_string(&mut body)?;
            Ok(body)
        }
        Some(("-", error)) => Err(std::io::Error::other(error)),
        _ => Err(std::io::Error::other("it closed the connection")),
    }
}
