//! Which contexts serve a client by the server name that it asks for: those of the whole name, else those of a wildcard, else the
//! listener's own. Pure; alike for TLS, RFC 8998 and TLCP, whose hellos name the server in the same extension.

use crate::config::ServerName;
use gm_tls::server::ServerContexts;
use std::net::IpAddr;

/// The contexts of one listener.
#[derive(Debug)]
pub struct Sites {
    /// For clients that ask for no name, and for none that is there.
    pub default: ServerContexts,
    pub by_name: Vec<(ServerName, ServerContexts)>,
    pub refuse_unknown: bool,
}

/// The client asks for a name that is not there, and the listener is set up to refuse that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownName;

impl Sites {
    /// The contexts for a client.
    ///
    /// # Errors
    /// None are for the name it asks for.
    pub fn select(&self, asked: Option<&str>) -> Result<&ServerContexts, UnknownName> {
        // An address is no server name, though clients send some.
        let asked = asked.filter(|asked| asked.parse::<IpAddr>().is_err());
        let Some(asked) = asked else { return Ok(&self.default) };
        match best(self.by_name.iter().map(|(name, _)| name), asked).and_then(|at| self.by_name.get(at)) {
            Some((_, contexts)) => Ok(contexts),
            None if self.refuse_unknown => Err(UnknownName),
            None => Ok(&self.default),
        }
    }
}

/// The place of the name that fits best.
fn best<'a>(names: impl Iterator<Item = &'a ServerName>, asked: &str) -> Option<usize> {
    let fitting = names.enumerate().map(|(at, name)| (name.fits(asked), at)).filter(|(fits, _)| *fits > 0);
    fitting.max_by_key(|(fits, _)| *fits).map(|(_, at)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_name_goes_before_the_wildcard_whatever_their_order() {
        for names in [["*.example.com", "mqtt.example.com"], ["mqtt.example.com", "*.example.com"]] {
            let names: Vec<ServerName> = names.iter().map(|name| name.parse().unwrap()).collect();
            let chosen = |asked: &str| best(names.iter(), asked).map(|at| names[at].to_string());
            assert_eq!(chosen("mqtt.example.com").as_deref(), Some("mqtt.example.com"));
            assert_eq!(chosen("MQTT.EXAMPLE.COM.").as_deref(), Some("mqtt.example.com"));
            assert_eq!(chosen("other.example.com").as_deref(), Some("*.example.com"));
            assert_eq!(chosen("example.com"), None);
            assert_eq!(chosen("a.mqtt.example.com"), None);
            assert_eq!(chosen("mqtt.example.com\0"), None);
        }
    }
}
