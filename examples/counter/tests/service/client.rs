//! As much HTTP/1.1 as these tests need, over one connection that is kept.

use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

pub(crate) struct Client {
    stream: BufReader<TcpStream>,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl Client {
    pub(crate) fn connect(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    pub(crate) fn get(&mut self, path: &str) -> Answer {
        self.request("GET", path).unwrap()
    }

    /// An error leaves open whether the request was served.
    pub(crate) fn request(&mut self, method: &str, path: &str) -> Result<Answer> {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
        self.stream.get_mut().write_all(request.as_bytes())?;
        let mut headers = String::new();
        while !headers.ends_with("\r\n\r\n") {
            if self.stream.read_line(&mut headers)? == 0 {
                return Err(Error::new(ErrorKind::UnexpectedEof, "the connection ended"));
            }
        }
        let headers = headers.to_ascii_lowercase();
        let status = headers.split(' ').nth(1).and_then(|status| status.parse().ok());
        let length = headers.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; if method == "HEAD" { 0 } else { length.unwrap_or(0) }];
        self.stream.read_exact(&mut body)?;
        let status = status.ok_or_else(|| Error::new(ErrorKind::InvalidData, "no status"))?;
        Ok(Answer { status, headers, body: String::from_utf8_lossy(&body).into_owned() })
    }

    /// Every user, page by page: (user_id, counter, events_pending).
    pub(crate) fn users(&mut self) -> Vec<(String, i64, u64)> {
        let mut users = Vec::new();
        let mut after = String::new();
        loop {
            let page = self.get(&format!("/status?limit=150{after}")).json();
            for user in page["users"].as_array().unwrap() {
                let id = user["user_id"].as_str().unwrap().to_owned();
                users.push((id, user["counter"].as_i64().unwrap(), user["events_pending"].as_u64().unwrap()));
            }
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => return users,
            }
        }
    }
}
