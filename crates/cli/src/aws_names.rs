//! Names as AWS takes them, and addresses, read from the command line. **Pure.**

use std::net::SocketAddr;

/// Longest name of a table (DynamoDB quotas: 3 to 255).
const TABLE: usize = 255;
/// Longest name of a stream (Kinesis: `CreateStream`, 1 to 128).
const STREAM: usize = 128;
/// The longest of what is put behind the application's name to name its tables.
const SUFFIX: &str = "-dead-letters";

fn is_name(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

fn named(text: &str, shortest: usize, longest: usize) -> Result<String, String> {
    if is_name(text) && (shortest..=longest).contains(&text.len()) {
        return Ok(text.to_owned());
    }
    Err(format!("give {shortest} to {longest} of the characters A-Z a-z 0-9 _ . -"))
}

/// The application: its name is that of a table, and others are made from it.
pub(crate) fn application(text: &str) -> Result<String, String> {
    named(text, 3, TABLE - SUFFIX.len())
}

/// A table.
pub(crate) fn table(text: &str) -> Result<String, String> {
    named(text, 3, TABLE)
}

/// A stream, by name or ARN.
pub(crate) fn stream(text: &str) -> Result<String, String> {
    if !text.starts_with("arn:") {
        return named(text, 1, STREAM).map_err(|why| format!("{why}, or an ARN"));
    }
    let parts: Vec<&str> = text.split(':').collect();
    match parts[..] {
        [_, partition, "kinesis", region, account, name]
            if is_part(partition) && is_part(region) && is_account(account) && is_stream(name) =>
        {
            Ok(text.to_owned())
        }
        _ => {
            Err("give a name, or an ARN such as arn:aws:kinesis:eu-west-1:123456789012:stream/orders".into())
        }
    }
}

fn is_part(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn is_stream(resource: &str) -> bool {
    resource.strip_prefix("stream/").is_some_and(|name| named(name, 1, STREAM).is_ok())
}

fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// An AWS account.
pub(crate) fn account(text: &str) -> Result<String, String> {
    if is_account(text) { Ok(text.to_owned()) } else { Err("give the account's 12 digits".into()) }
}

/// An address to listen on.
pub(crate) fn listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_no_address| "give IP:PORT, such as 127.0.0.1:9464 or [::1]:9464".into())
}

/// Where others reach an address.
pub(crate) fn reached(text: &str) -> Result<String, String> {
    let is_host = |host: &str| !host.is_empty() && is_name(host);
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    let is_address = text.parse::<SocketAddr>().is_ok_and(|address| address.port() > 0);
    match text.rsplit_once(':') {
        Some((host, port)) if is_address || is_host(host) && is_port(port) => Ok(text.to_owned()),
        _ => Err("give HOST:PORT, such as 10.0.0.7:9464 or worker-1.example:9464".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_aws_takes() {
        for (good, bad) in
            [("abc", "ab"), ("a_b.c-9", "a b"), ("billing", "billing/*"), ("Billing", "\u{e9}t\u{e9}s")]
        {
            assert_eq!((application(good), table(good)), (Ok(good.to_owned()), Ok(good.to_owned())));
            assert!(application(bad).is_err() && table(bad).is_err(), "{bad}");
        }
        let long = |length| "a".repeat(length);
        assert!(table(&long(255)).is_ok() && table(&long(256)).is_err());
        assert!(application(&long(242)).is_ok() && application(&long(243)).is_err());
        assert_eq!(crate::app::default_dead_letters("").len(), SUFFIX.len());
        assert!(stream("s").is_ok() && stream(&long(128)).is_ok() && stream(&long(129)).is_err());
        assert!(stream("").is_err() && stream("a b").is_err() && stream("*").is_err());
        assert!(account("123456789012").is_ok() && account("foo").is_err() && account("*").is_err());
    }

    #[test]
    fn a_stream_may_be_an_arn_of_one_stream() {
        let arn = |end: &str| stream(&format!("arn:aws:kinesis:{end}"));
        assert!(arn("eu-west-1:123456789012:stream/orders").is_ok());
        assert!(stream("arn:aws-us-gov:kinesis:us-gov-west-1:123456789012:stream/orders").is_ok());
        for bad in
            ["", "eu-west-1:123456789012:stream/", "eu-west-1:123456789012:orders", "eu-west-1:*:stream/o"]
        {
            assert!(arn(bad).is_err(), "{bad}");
        }
        assert!(
            arn("*:123456789012:stream/orders").is_err() && arn("eu-west-1:123456789012:stream/*").is_err()
        );
        assert!(stream("arn:aws:dynamodb:eu-west-1:123456789012:stream/orders").is_err());
    }

    #[test]
    fn addresses_have_a_port() {
        assert!(listen("127.0.0.1:0").is_ok() && listen("[::]:9464").is_ok());
        assert!(listen("localhost:80").unwrap_err().contains("IP:PORT, such as 127.0.0.1:9464"));
        for good in ["10.0.0.7:9464", "[fd00::7]:9464", "worker-1.example:80"] {
            assert_eq!(reached(good).as_deref(), Ok(good));
        }
        for bad in
            ["not a host", "host", "host:", "host:0", ":80", "host:70000", "http://host:80", "fd00::7:9464x"]
        {
            assert!(reached(bad).unwrap_err().contains("HOST:PORT"), "{bad}");
        }
    }
}
