//! The little of MongoDB's protocol that it takes to make a replica set.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(5);
const OP_MSG: i32 = 2013;

/// What a document is made of.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Text(String),
    Number(i32),
    Bool(bool),
    Document(Vec<(String, Value)>),
    Array(Vec<Value>),
    /// Of a type that nobody here asks about.
    Other,
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// A document of these fields, in their order: the first one of a command is its name.
pub(super) fn document<const N: usize>(fields: [(&str, Value); N]) -> Value {
    Value::Document(fields.map(|(name, value)| (name.to_owned(), value)).into())
}

/// Sends one command to the database `admin` on a connection of its own, and returns the fields it answers.
pub(super) fn ask(address: impl ToSocketAddrs, command: Value) -> Result<Vec<(String, Value)>, String> {
    let Value::Document(mut fields) = command else { return Err("a command is a document".into()) };
    fields.push(("$db".to_owned(), "admin".into()));
    let answer = exchange(address, &Value::Document(fields)).map_err(|error| error.to_string())?;
    let fields = decode(&answer).ok_or("it answers no document")?;
    match text(&fields, "errmsg") {
        Some(error) => Err(error.to_owned()),
        None => Ok(fields),
    }
}

fn exchange(address: impl ToSocketAddrs, document: &Value) -> std::io::Result<Vec<u8>> {
    let address = address.to_socket_addrs()?.next().ok_or(std::io::ErrorKind::NotFound)?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut body = Vec::new();
    encode(document, &mut body);
    // Header (length, request, response to, code), flags, and one section of the kind 0: a document.
    let mut message = Vec::new();
    for number in [i32::try_from(body.len() + 21).unwrap_or(i32::MAX), 1, 0, OP_MSG, 0] {
        message.extend(number.to_le_bytes());
    }
    message.push(0);
    message.extend(body);
    stream.write_all(&message)?;
    let mut head = [0; 21];
    stream.read_exact(&mut head)?;
    let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
    let mut answer = Vec::new();
    stream.take(u64::from(length.saturating_sub(21))).read_to_end(&mut answer)?;
    Ok(answer)
}

/// A field that is text.
pub(super) fn text<'a>(fields: &'a [(String, Value)], name: &str) -> Option<&'a str> {
    fields.iter().find_map(|(field, value)| match value {
        Value::Text(text) if field == name => Some(text.as_str()),
        _ => None,
    })
}

fn encode(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Text(text) => {
            out.extend(i32::try_from(text.len() + 1).unwrap_or(i32::MAX).to_le_bytes());
            out.extend(text.as_bytes());
            out.push(0);
        }
        Value::Number(number) => out.extend(number.to_le_bytes()),
        Value::Bool(bool) => out.push(u8::from(*bool)),
        Value::Document(fields) => {
            let mut body = Vec::new();
            for (name, value) in fields {
                body.push(kind(value));
                body.extend(name.as_bytes());
                body.push(0);
                encode(value, &mut body);
            }
            out.extend(i32::try_from(body.len() + 5).unwrap_or(i32::MAX).to_le_bytes());
            out.extend(body);
            out.push(0);
        }
        Value::Array(values) => {
            let fields = values.iter().enumerate().map(|(at, value)| (at.to_string(), value.clone()));
            encode(&Value::Document(fields.collect()), out);
        }
        Value::Other => {}
    }
}

fn kind(value: &Value) -> u8 {
    match value {
        Value::Text(_) => 2,
        Value::Document(_) => 3,
        Value::Array(_) => 4,
        Value::Bool(_) => 8,
        Value::Other => 10,
        Value::Number(_) => 16,
    }
}

/// The fields of a document.
fn decode(document: &[u8]) -> Option<Vec<(String, Value)>> {
    let mut rest = document.get(4..)?;
    let mut fields = Vec::new();
    loop {
        let (&kind, after) = rest.split_first()?;
        if kind == 0 {
            return Some(fields);
        }
        let end = after.iter().position(|byte| *byte == 0)?;
        let name = String::from_utf8_lossy(&after[..end]).into_owned();
        let body = &after[end + 1..];
        let number = || Some(u32::from_le_bytes(body.get(..4)?.try_into().ok()?) as usize);
        let (value, length) = match kind {
            2 => {
                let text = body.get(4..(4 + number()?).checked_sub(1)?)?;
                (Value::Text(String::from_utf8_lossy(text).into_owned()), 4 + number()?)
            }
            3 | 4 => (Value::Other, number()?),
            5 => (Value::Other, 5 + number()?),
            7 => (Value::Other, 12),
            8 => (Value::Bool(*body.first()? == 1), 1),
            10 => (Value::Other, 0),
            16 => (Value::Number(i32::from_le_bytes(body.get(..4)?.try_into().ok()?)), 4),
            1 | 9 | 17 | 18 => (Value::Other, 8),
            _ => return None,
        };
        fields.push((name, value));
        rest = body.get(length..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        let inner = document([("a", "b".into())]);
        let fields = [("hello", Value::Number(1)), ("name", "x".into()), ("yes", Value::Bool(true))];
        let [one, two, three] = fields;
        let mut bytes = Vec::new();
        encode(
            &document([one, ("inner", inner), ("list", Value::Array(vec!["z".into()])), two, three]),
            &mut bytes,
        );
        let fields = decode(&bytes).unwrap();
        assert_eq!(text(&fields, "name"), Some("x"));
        assert_eq!(fields[0], ("hello".to_owned(), Value::Number(1)));
        assert_eq!(fields[4], ("yes".to_owned(), Value::Bool(true)));
    }
}
