//! `shangmq check-config`: every mistake in a configuration and in the files it names, without starting anything.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::{ConfigArguments, Outcome};
use crate::config::{Config, ConfigError, ConfigErrors, ListenerConfig};
use crate::dev_certs::DEFAULT_DIR;
use crate::net::PreparedListener;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    valid: bool,
    errors: &'a [ConfigError],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    warnings: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'a str>,
}

impl Arguments {
    /// Exits with 1 when there is a mistake.
    pub(super) fn run(self) -> Outcome {
        let checked = check(&self.config).map(|good| Good { development: development(&self.config), ..good });
        report(&checked, self.json, &mut io::stdout().lock())?;
        Ok(if checked.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// What was found good.
#[derive(Debug, Default)]
struct Good {
    /// Each listener and where it will listen.
    listeners: Vec<String>,
    /// What may not be meant.
    warnings: Vec<String>,
    /// False for the development configuration before its first start, which makes its certificates.
    certificates: bool,
    /// That no file was asked for.
    development: Option<&'static str>,
}

/// A file of this name may be taken for one that is read by itself.
const USUAL_FILE: &str = "shangmq.toml";
const DEVELOPMENT: &str = "no --config: this is the development configuration";
const DEVELOPMENT_BESIDE_FILE: &str =
    "no --config: this is the development configuration; ./shangmq.toml is not read, --config shangmq.toml reads it";

/// What to say of the configuration that is checked where no file was given.
fn development(arguments: &ConfigArguments) -> Option<&'static str> {
    let beside = Path::new(USUAL_FILE).exists();
    arguments.config.is_none().then_some(if beside { DEVELOPMENT_BESIDE_FILE } else { DEVELOPMENT })
}

impl Good {
    fn of<'a>(
        config: &Config,
        listeners: impl Iterator<Item = &'a ListenerConfig>,
        of_listeners: impl Iterator<Item = String>,
        certificates: bool,
    ) -> Good {
        let written = config.warnings.iter().cloned();
        let warnings = written.chain(of_listeners).collect();
        Good { listeners: listeners.map(listener).collect(), warnings, certificates, development: None }
    }
}

/// Everything that `shangmq start` does before it listens, so that what is good here does not fail there.
fn check(arguments: &ConfigArguments) -> Result<Good, ConfigErrors> {
    if arguments.config.is_none() && !Path::new(DEFAULT_DIR).exists() {
        let config = arguments.load()?;
        let warnings = config.listeners.iter().flat_map(ListenerConfig::warnings);
        return Ok(Good::of(&config, config.listeners.iter(), warnings, false));
    }
    let prepared = arguments.prepare()?;
    let listeners = prepared.listeners().iter();
    let warnings = listeners.clone().flat_map(PreparedListener::warnings);
    Ok(Good::of(prepared.config(), listeners.map(PreparedListener::config), warnings, true))
}

fn listener(config: &ListenerConfig) -> String {
    format!("{} on {}", config.id(), config.bind)
}

fn report(checked: &Result<Good, ConfigErrors>, json: bool, out: &mut impl Write) -> io::Result<()> {
    let errors = checked.as_ref().err().map(ConfigErrors::as_slice).unwrap_or_default();
    let warnings = checked.as_ref().map(|good| good.warnings.as_slice()).unwrap_or_default();
    let note = match checked {
        Ok(good) => good.development,
        Err(errors) => errors.note(),
    };
    if json {
        serde_json::to_writer_pretty(&mut *out, &Report { valid: checked.is_ok(), errors, warnings, note })?;
        return writeln!(out);
    }
    match checked {
        Err(errors) => writeln!(out, "{errors}\n{} found", mistakes(errors.as_slice().len())),
        Ok(good) => {
            if let Some(said) = good.development {
                writeln!(out, "{said}")?;
            }
            for listener in &good.listeners {
                writeln!(out, "{listener}")?;
            }
            for warning in &good.warnings {
                writeln!(out, "warning: {warning}")?;
            }
            if !good.certificates {
                writeln!(out, "the first start makes the development certificates in {DEFAULT_DIR}")?;
            }
            writeln!(out, "the configuration is valid")
        }
    }
}

fn mistakes(count: usize) -> String {
    if count == 1 { "1 mistake".to_owned() } else { format!("{count} mistakes") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_for_development_is_told_from_a_file() {
        for said in [DEVELOPMENT, DEVELOPMENT_BESIDE_FILE] {
            let mut out = Vec::new();
            let good = Good { development: Some(said), certificates: true, ..Good::default() };
            report(&Ok(good), false, &mut out).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), format!("{said}\nthe configuration is valid\n"));
        }
        assert_eq!(development(&ConfigArguments { config: None }), Some(DEVELOPMENT));
        assert_eq!(development(&ConfigArguments { config: Some("t.toml".into()) }), None);
    }

    /// What there is nothing to warn of.
    const OPEN: &str = "[auth]\nallow_anonymous = true\nno_match = \"allow\"\n";

    fn printed(text: &str, json: bool) -> String {
        let mut out = Vec::new();
        let checked = Config::parse(Path::new("t.toml"), text, []);
        let checked = checked.map(|config| {
            let warnings = config.listeners.iter().flat_map(ListenerConfig::warnings);
            Good::of(&config, config.listeners.iter(), warnings, true)
        });
        report(&checked, json, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_valid_configuration_lists_its_listeners() {
        let text = format!("{OPEN}[listeners.tcp.default]\nbind = \"127.0.0.1:1883\"\n");
        assert_eq!(printed(&text, false), "tcp:default on 127.0.0.1:1883\nthe configuration is valid\n");
        assert_eq!(printed(&text, true), "{\n  \"valid\": true,\n  \"errors\": []\n}\n");
    }

    // Each block verifies for itself, and a client chose the one that asked for nothing.
    #[test]
    fn blocks_that_ask_different_things_of_clients_are_a_warning() {
        let listener = |tlcp: &str| {
            format!(
                "{OPEN}[listeners.ssl.a]\nbind = \"127.0.0.1:8883\"\n[listeners.ssl.a.ssl_options]\ncertfile = \"c\"\nkeyfile = \"k\"\n\
                 verify = \"verify_peer\"\nfail_if_no_peer_cert = true\ncacertfile = \"ca\"\n[listeners.ssl.a.tlcp_options]\n\
                 sign_certfile = \"c\"\nsign_keyfile = \"k\"\nenc_certfile = \"c\"\nenc_keyfile = \"k\"\n{tlcp}"
            )
        };
        let warning = "ssl:a: of client certificates ssl_options requires one and tlcp_options asks for none, and clients choose the \
                       block by their protocol";
        let text = listener("verify = \"verify_none\"\n");
        let plain = format!("ssl:a on 127.0.0.1:8883\nwarning: {warning}\nthe configuration is valid\n");
        assert_eq!(printed(&text, false), plain);
        let json: serde_json::Value = serde_json::from_str(&printed(&text, true)).unwrap();
        assert_eq!((&json["valid"], &json["warnings"][0]), (&true.into(), &warning.into()));
        let alike = listener("verify = \"verify_peer\"\nfail_if_no_peer_cert = true\ncacertfile = \"ca\"\n");
        assert!(!printed(&alike, false).contains("warning"));
    }

    #[test]
    fn keys_that_do_nothing_alone_are_a_warning() {
        let text = "[metrics]\nbind = 9090\n[listeners.ssl.a]\nbind = 8883\n[listeners.ssl.a.ssl_options]\ncertfile = \"c\"\n\
                    keyfile = \"k\"\ncacertfile = \"ca\"\n";
        let found = printed(text, false);
        for warning in [
            "warning: t.toml:2:1: metrics.bind: no metrics are served; add enable = true\n",
            "warning: t.toml:8:1: listeners.ssl.a.ssl_options.cacertfile: clients are not asked for certificates; add verify = \
             \"verify_peer\" to ask for them\n",
        ] {
            assert!(found.contains(warning), "{found}");
        }
        // Which parts a bundle has is not known here.
        let managed =
            "[listeners.ssl.a]\nbind = 8883\n[listeners.ssl.a.ssl_options]\nmanaged_certs = { bundle_name = \"b\" }\n";
        let found = printed(&format!("{OPEN}{managed}"), false);
        assert!(!found.contains("warning"), "{found}");
        let meant = text.replace("bind = 9090", "bind = 9090\nenable = false") + "verify = \"verify_none\"\n" + OPEN;
        assert!(!printed(&meant, false).contains("warning"));
    }

    #[test]
    fn mistakes_are_printed_one_to_a_line_and_counted() {
        let text = "[nod]\n[listeners.tcp.default]\nbind = 70000\n";
        assert_eq!(
            printed(text, false),
            "t.toml:1:2: nod: unknown key; did you mean `node`?\n\
             t.toml:3:8: listeners.tcp.default.bind: 70000 is out of range, it must be between 0 and 65535; write an \
             address and a port: \"0.0.0.0:8883\", \"[::]:8883\", or a port alone: 8883\n2 mistakes found\n"
        );
    }

    #[test]
    fn json_carries_place_key_reason_and_suggestion() {
        let json: serde_json::Value = serde_json::from_str(&printed("[nod]\n", true)).unwrap();
        assert_eq!(json["valid"], false);
        let expected = serde_json::json!({
            "file": "t.toml", "line": 1, "column": 2, "key": "nod", "reason": "unknown key",
            "suggestion": "did you mean `node`?"
        });
        assert_eq!(json["errors"][0], expected);
    }
}
