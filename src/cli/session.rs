//! The arguments of CONNECT, shared by `pub` and `sub`.

use std::error::Error;
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::ExitCode;

use bytes::Bytes;
use bytestring::ByteString;
use clap::Args;
use mqtt_codec::{
    ConnAck, Connect, ConnectProperties, ProtocolVersion, QoS, Secret, UserProperties, Will, WillProperties,
};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::Outcome;
use super::transport::{TransportArguments, hidden};
use super::url::Hidden;
use crate::client::{Client, ClientError, Endpoint, Scram, ScramError, Stream};

/// The environment variable that a password may come from.
const PASSWORD_VARIABLE: &str = "SHANGMQ_PASSWORD";

/// A password is a field of a packet and no longer than that [MQTT-1.5.6].
const MAX_PASSWORD_BYTES: u64 = 65_535;

/// How to introduce oneself to the server.
#[derive(Debug, Args)]
pub struct SessionArguments {
    /// Client identifier [default: random]
    #[arg(short, long = "id", value_name = "ID", help_heading = "Session")]
    pub(super) id: Option<String>,
    /// User name
    #[arg(short, long, value_name = "NAME", help_heading = "Session")]
    username: Option<String>,
    /// Password, visible to other users of this machine; rather use --password-file or the variable SHANGMQ_PASSWORD
    #[arg(short = 'P', long = "pw", value_name = "PASSWORD", value_parser = hidden, help_heading = "Session")]
    password: Option<Hidden>,
    /// File whose first line is the password
    #[arg(long, value_name = "FILE", conflicts_with = "password", help_heading = "Session")]
    password_file: Option<PathBuf>,
    /// Prove the password by SCRAM-SHA-256 instead of sending it (MQTT 5); the server must prove that it knows it
    #[arg(long, requires = "username", help_heading = "Session")]
    scram: bool,
    /// Seconds between signs of life; 0 for none
    #[arg(short, long = "keepalive", default_value_t = 60, value_name = "SECS", help_heading = "Session")]
    keep_alive: u16,
    /// Version of MQTT: 31, 311 or 5
    #[arg(short = 'V', long = "protocol-version", default_value = "5", value_parser = version, help_heading = "Session")]
    pub(super) version: ProtocolVersion,
    /// Seconds that the session outlives the connection (MQTT 5)
    #[arg(short = 'x', long, value_name = "SECS", help_heading = "Session")]
    session_expiry_interval: Option<u32>,
    /// Topic of the message that the server sends if this client vanishes
    #[arg(long, value_name = "TOPIC", help_heading = "Session")]
    will_topic: Option<String>,
    /// Its payload
    #[arg(long, value_name = "TEXT", requires = "will_topic", help_heading = "Session")]
    will_payload: Option<String>,
    /// Its QoS
    #[arg(long, default_value = "0", value_parser = qos, requires = "will_topic", value_name = "QOS", help_heading = "Session")]
    will_qos: QoS,
    /// Have the server retain it
    #[arg(long, requires = "will_topic", help_heading = "Session")]
    will_retain: bool,
    /// Largest packet to take from the server, in bytes
    #[arg(long, default_value = "16777216", value_name = "BYTES", help_heading = "Session")]
    max_packet_size: NonZeroU32,
    /// Say on standard error what is sent and received, without payloads
    #[arg(short, long, help_heading = "Session")]
    debug: bool,
}

/// Arguments of the session that cannot be used, or a CONNACK that did not come.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    #[error("cannot read --password-file {}", path.display())]
    PasswordFile { path: PathBuf, source: io::Error },
    #[error("the password in {0} is longer than {MAX_PASSWORD_BYTES} bytes")]
    PasswordTooLong(String),
    #[error("MQTT before version 5 allows no password without a user name: give -u, or -V 5")]
    PasswordWithoutUser,
    #[error("{0} needs -V 5")]
    NeedsVersion5(&'static str),
    #[error("--scram needs a password: give --password-file or SHANGMQ_PASSWORD")]
    ScramWithoutPassword,
    #[error(transparent)]
    Scram(#[from] ScramError),
    #[error("a session that is kept needs a name to be found by: give --id")]
    IdNeeded,
    #[error("--will-topic: {0}")]
    WillTopic(mqtt_codec::topic::TopicError),
    #[error("no CONNACK within {0} seconds")]
    NoConnAck(u64),
    #[error("cannot get random bytes for a client identifier: {0}")]
    Random(getrandom::Error),
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// A QoS as written on the command line.
pub(super) fn qos(text: &str) -> Result<QoS, String> {
    text.parse::<u8>().ok().and_then(|qos| QoS::try_from(qos).ok()).ok_or_else(|| "QoS is 0, 1 or 2".to_owned())
}

/// A version of MQTT as written on the command line.
pub(super) fn version(text: &str) -> Result<ProtocolVersion, String> {
    match text {
        "31" | "3.1" | "mqttv31" => Ok(ProtocolVersion::V3_1),
        "311" | "3.1.1" | "mqttv311" => Ok(ProtocolVersion::V3_1_1),
        "5" | "5.0" | "50" | "mqttv5" => Ok(ProtocolVersion::V5),
        _ => Err("the version is 31, 311 or 5".to_owned()),
    }
}

impl SessionArguments {
    /// The largest packet to take from the server, in bytes.
    pub(super) fn max_packet_size(&self) -> u32 {
        self.max_packet_size.get()
    }

    /// Starts the log that `--debug` asks for.
    pub(super) fn start_log(&self) {
        if self.debug {
            let log = tracing_subscriber::fmt()
                .with_max_level(tracing::Level::DEBUG)
                .with_target(false)
                .with_ansi(io::stderr().is_terminal())
                .with_writer(io::stderr)
                .finish();
            // A subscriber that is already there serves as well.
            let _ = tracing::subscriber::set_global_default(log);
        }
    }

    /// Builds CONNECT. `keep_session` asks for a session that outlives the connection.
    ///
    /// # Errors
    /// [`SessionError`]
    pub(super) fn connect(
        &self,
        transport: &TransportArguments,
        keep_session: bool,
        user_properties: UserProperties,
    ) -> Result<Connect, SessionError> {
        let v5 = self.version.is_v5();
        if !v5 && self.session_expiry_interval.is_some() {
            return Err(SessionError::NeedsVersion5("--session-expiry-interval"));
        }
        if keep_session && self.id.is_none() {
            return Err(SessionError::IdNeeded);
        }
        let url = transport.url.as_ref();
        let username = self.username.clone().or_else(|| url.and_then(|url| url.username.clone()));
        let password = match self.password(username.is_some())? {
            Some(password) => Some(password),
            None => url.and_then(|url| url.password.as_ref()).map(secret),
        };
        if !v5 && password.is_some() && username.is_none() {
            return Err(SessionError::PasswordWithoutUser);
        }
        let properties = ConnectProperties {
            session_expiry_interval: self.session_expiry_interval.or((v5 && keep_session).then_some(u32::MAX)),
            maximum_packet_size: Some(self.max_packet_size),
            user_properties,
            ..ConnectProperties::default()
        };
        Ok(Connect {
            version: self.version,
            clean_start: !keep_session,
            keep_alive_secs: self.keep_alive,
            properties,
            client_id: match &self.id {
                Some(id) => id.as_str().into(),
                None => random_id().map_err(SessionError::Random)?,
            },
            will: self.will()?,
            username: username.map(ByteString::from),
            password,
        })
    }

    /// Takes user name and password out of a CONNECT that is to prove them by SCRAM.
    ///
    /// # Errors
    /// [`SessionError`]
    pub(super) fn scram(&self, connect: &mut Connect) -> Result<Option<Scram>, SessionError> {
        if !self.scram {
            return Ok(None);
        }
        if !self.version.is_v5() {
            return Err(SessionError::NeedsVersion5("--scram"));
        }
        match (connect.username.take(), connect.password.take()) {
            (Some(username), Some(password)) => Ok(Some(Scram::new(&username, password)?)),
            _ => Err(SessionError::ScramWithoutPassword),
        }
    }

    fn will(&self) -> Result<Option<Will>, SessionError> {
        let Some(topic) = &self.will_topic else { return Ok(None) };
        mqtt_codec::topic::validate_name(topic).map_err(SessionError::WillTopic)?;
        Ok(Some(Will {
            qos: self.will_qos,
            retain: self.will_retain,
            properties: WillProperties::default(),
            topic: topic.as_str().into(),
            payload: Bytes::from(self.will_payload.clone().unwrap_or_default()),
        }))
    }

    fn password(&self, has_username: bool) -> Result<Option<Secret>, SessionError> {
        if let Some(password) = &self.password {
            return Ok(Some(secret(password)));
        }
        if let Some(path) = &self.password_file {
            let unreadable = |source| SessionError::PasswordFile { path: path.clone(), source };
            let mut text = Zeroizing::new(Vec::new());
            let file = File::open(path).map_err(unreadable)?;
            file.take(MAX_PASSWORD_BYTES + 1).read_to_end(&mut text).map_err(unreadable)?;
            let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            return checked(line, || path.display().to_string()).map(Some);
        }
        if has_username { password_of_environment() } else { Ok(None) }
    }
}

/// The password in the environment. It is that of a user: to a server that no user name is given to, it is not sent.
///
/// # Errors
/// [`SessionError::PasswordTooLong`]
pub(super) fn password_of_environment() -> Result<Option<Secret>, SessionError> {
    match std::env::var_os(PASSWORD_VARIABLE) {
        None => Ok(None),
        Some(value) => {
            use std::os::unix::ffi::OsStringExt;
            let value = Zeroizing::new(value.into_vec());
            checked(&value, || PASSWORD_VARIABLE.to_owned()).map(Some)
        }
    }
}

/// Speaks CONNECT and CONNACK over a stream that was opened, within the time that a step of connecting may take.
///
/// # Errors
/// [`SessionError`]
pub(super) async fn establish(
    endpoint: &Endpoint,
    io: Box<dyn Stream>,
    connect: Connect,
    scram: Option<Scram>,
    max_packet_size: u32,
) -> Result<(Client<Box<dyn Stream>>, ConnAck), SessionError> {
    let limit = endpoint.timeout;
    match timeout(limit, Client::authenticate(io, connect, scram, max_packet_size)).await {
        Ok(established) => Ok(established.map_err(|error| error.before_connack(|| endpoint.unanswered()))?),
        Err(_elapsed) => Err(SessionError::NoConnAck(limit.as_secs())),
    }
}

/// A client identifier that every server must take: at most 23 letters and digits [MQTT-3.1.3-5].
///
/// # Errors
/// The system has no random bytes.
pub(super) fn random_id() -> Result<ByteString, getrandom::Error> {
    let mut random = [0; 8];
    getrandom::fill(&mut random)?;
    Ok(format!("shangmq{:016x}", u64::from_be_bytes(random)).into())
}

pub(super) fn secret(text: &Hidden) -> Secret {
    Secret::from(Bytes::copy_from_slice(text.expose().as_bytes()))
}

fn checked(password: &[u8], origin: impl FnOnce() -> String) -> Result<Secret, SessionError> {
    if u64::try_from(password.len()).map_or(true, |len| len > MAX_PASSWORD_BYTES) {
        return Err(SessionError::PasswordTooLong(origin()));
    }
    Ok(Secret::from(Bytes::copy_from_slice(password)))
}

/// SIGINT and SIGTERM, taken as a wish to end in order.
#[derive(Debug)]
pub(super) struct Interrupt {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupt {
    /// Takes both signals from now on.
    ///
    /// # Errors
    /// The system gives no signal handler.
    pub(super) fn install() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for one of them. Cancel-safe.
    pub(super) async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Gives a server's refusal its reason code as exit code, as scripts want to tell them apart; everything else is `main`'s.
pub(super) fn exit_code(error: Box<dyn Error + Send + Sync>) -> Outcome {
    let client = match error.downcast_ref::<SessionError>() {
        Some(SessionError::Client(client)) => Some(client),
        _ => error.downcast_ref::<ClientError>(),
    };
    match client.and_then(ClientError::reason) {
        Some(reason) if reason.is_error() => {
            super::complain(&error);
            Ok(ExitCode::from(reason.as_u8()))
        }
        _ => Err(error),
    }
}

/// Runs one connection to its end.
pub(super) fn block_on(future: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(future).or_else(exit_code);
    // A name that is still being resolved in the background must not keep the process.
    runtime.shutdown_background();
    outcome
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    #[command(disable_help_flag = true)]
    struct Line {
        #[command(flatten)]
        transport: TransportArguments,
        #[command(flatten)]
        session: SessionArguments,
    }

    fn connect(arguments: &[&str], keep: bool) -> Result<Connect, SessionError> {
        let line = Line::try_parse_from(std::iter::once(&"test").chain(arguments)).unwrap();
        line.session.connect(&line.transport, keep, UserProperties::default())
    }

    #[test]
    fn versions_have_the_names_of_other_clients() {
        for (text, version) in [
            ("31", ProtocolVersion::V3_1),
            ("mqttv31", ProtocolVersion::V3_1),
            ("311", ProtocolVersion::V3_1_1),
            ("mqttv311", ProtocolVersion::V3_1_1),
            ("5", ProtocolVersion::V5),
            ("mqttv5", ProtocolVersion::V5),
        ] {
            assert_eq!(connect(&["-V", text], false).unwrap().version, version);
        }
        assert!(Line::try_parse_from(["test", "-V", "4"]).is_err());
    }

    #[test]
    fn credentials_come_from_arguments_before_the_url() {
        let from_url = connect(&["-L", "mqtt://u:p@host"], false).unwrap();
        assert_eq!(from_url.username.as_deref(), Some("u"));
        assert_eq!(from_url.password.unwrap().as_bytes(), b"p");
        let from_arguments = connect(&["-L", "mqtt://u:p@host", "-u", "v", "-P", "q"], false).unwrap();
        assert_eq!(from_arguments.username.as_deref(), Some("v"));
        assert_eq!(from_arguments.password.unwrap().as_bytes(), b"q");
    }

    #[test]
    fn a_password_is_the_first_line_of_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        std::fs::write(&path, "open sesame\r\nmore\n").unwrap();
        let made = connect(&["-u", "u", "--password-file", path.to_str().unwrap()], false).unwrap();
        assert_eq!(made.password.unwrap().as_bytes(), b"open sesame");
    }

    #[test]
    fn arguments_that_the_version_does_not_know_are_refused() {
        assert!(matches!(connect(&["-V", "311", "-x", "5"], false), Err(SessionError::NeedsVersion5(_))));
        assert!(matches!(connect(&["-V", "311", "-P", "x"], false), Err(SessionError::PasswordWithoutUser)));
        assert!(connect(&["-P", "x"], false).is_ok());
    }

    #[test]
    fn scram_sends_neither_name_nor_password() {
        let line = ["test", "-u", "u", "-P", "open sesame", "--scram"];
        let of = |line: &[&str]| {
            let line = Line::try_parse_from(line).unwrap();
            let mut made = line.session.connect(&line.transport, false, UserProperties::default()).unwrap();
            line.session.scram(&mut made).map(|scram| (scram, made))
        };
        let (scram, made) = of(&line).unwrap();
        assert!(scram.is_some() && made.username.is_none() && made.password.is_none());
        assert!(matches!(of(&[&line[..], &["-V", "311"]].concat()), Err(SessionError::NeedsVersion5("--scram"))));
        assert!(matches!(of(&["test", "-u", "u", "--scram"]), Err(SessionError::ScramWithoutPassword)));
        assert!(Line::try_parse_from(["test", "--scram"]).is_err());
    }

    #[test]
    fn a_kept_session_needs_an_identifier_and_does_not_expire_by_itself() {
        assert!(matches!(connect(&[], true), Err(SessionError::IdNeeded)));
        let kept = connect(&["-i", "meter"], true).unwrap();
        assert!(!kept.clean_start);
        assert_eq!(kept.properties.session_expiry_interval, Some(u32::MAX));
        assert_eq!(connect(&["-i", "m", "-x", "9"], true).unwrap().properties.session_expiry_interval, Some(9));
    }

    #[test]
    fn a_will_has_a_topic_name() {
        let will = connect(&["--will-topic", "gone", "--will-payload", "x", "--will-qos", "1", "--will-retain"], false);
        let will = will.unwrap().will.unwrap();
        assert_eq!((&*will.topic, &*will.payload, will.qos, will.retain), ("gone", &b"x"[..], QoS::AtLeastOnce, true));
        assert!(matches!(connect(&["--will-topic", "a/#"], false), Err(SessionError::WillTopic(_))));
        assert!(Line::try_parse_from(["test", "--will-retain"]).is_err());
    }

    #[test]
    fn random_identifiers_differ_and_every_server_takes_them() {
        let (one, other) = (random_id().unwrap(), random_id().unwrap());
        assert_ne!(one, other);
        assert!(one.len() <= 23 && one.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    }

    // A server that refuses a client after the handshake of TLS 1.3 ends the connection, and "unexpected end of file" was all that was said.
    #[test]
    fn an_end_before_connack_says_whose_it_was_and_what_may_be_the_cause() {
        let at = || crate::client::ConnectError::Unanswered { at: "broker:8883".to_owned() };
        for kind in [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset] {
            let said = ClientError::Io(kind.into()).before_connack(at).to_string();
            assert!(said.starts_with("broker:8883 closed") && said.contains("its log says why"), "{said}");
        }
        let said = ClientError::ClosedBeforeConnAck.before_connack(at).to_string();
        assert!(said.starts_with("broker:8883 closed"), "{said}");
        let other = ClientError::Io(io::ErrorKind::OutOfMemory.into()).before_connack(at);
        assert!(matches!(other, ClientError::Io(_)), "{other}");
    }

    #[test]
    fn a_refusal_is_told_by_the_exit_code() {
        let refused = ClientError::Refused {
            version: ProtocolVersion::V5,
            reason: mqtt_codec::ReasonCode::NotAuthorized,
            text: None,
        };
        let code = exit_code(SessionError::Client(refused).into()).unwrap();
        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::from(0x87)));
        assert!(exit_code(ClientError::ClosedBeforeConnAck.into()).is_err());
    }
}
