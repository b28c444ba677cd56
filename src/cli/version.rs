//! `shangmq version`: of the program and of the library that does its cryptography, which an assessment asks for; and with `--crypto`
//! which implementation serves each SM algorithm.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use gm_tls::provider::{self, Service};
use serde::Serialize;

use super::{ConfigArguments, Outcome, crypto};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Say which implementation serves each SM algorithm with this configuration, after its self-test.
    #[arg(long)]
    crypto: bool,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArguments,
}

#[derive(Serialize)]
struct Report {
    version: &'static str,
    library: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    crypto: Option<Crypto>,
}

#[derive(Serialize)]
struct Crypto {
    /// As configured.
    provider: &'static str,
    /// Instructions that the accelerated provider can use here, in use or not.
    cpu_features: Vec<&'static str>,
    algorithms: Vec<Algorithm>,
}

#[derive(Serialize)]
struct Algorithm {
    operation: &'static str,
    algorithm: &'static str,
    /// The provider that the library fetches.
    provider: Option<String>,
}

impl Arguments {
    pub(super) fn run(self) -> Outcome {
        let crypto = if self.crypto { Some(self.crypto()?) } else { None };
        let report = Report { version: env!("CARGO_PKG_VERSION"), library: gm_tls::library_version(), crypto };
        let mut out = io::stdout().lock();
        if self.json {
            serde_json::to_writer_pretty(&mut out, &report)?;
            writeln!(out)?;
        } else {
            print(&report, &mut out)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn crypto(&self) -> Result<Crypto, Box<dyn std::error::Error + Send + Sync>> {
        let config = self.config.load()?.crypto;
        crypto::choose(config.provider)?;
        let algorithms = provider::services()
            .into_iter()
            .map(|Service { operation, algorithm, provider }| Algorithm { operation, algorithm, provider })
            .collect();
        Ok(Crypto { provider: config.as_str(), cpu_features: provider::cpu_features(), algorithms })
    }
}

fn print(report: &Report, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "shangmq {}\n{}", report.version, report.library)?;
    let Some(crypto) = &report.crypto else { return Ok(()) };
    let features = if crypto.cpu_features.is_empty() { "none".to_owned() } else { crypto.cpu_features.join(" ") };
    writeln!(out, "crypto.provider {}\nCPU features that it can use: {features}", crypto.provider)?;
    for one in &crypto.algorithms {
        let provider = one.provider.as_deref().unwrap_or("nobody");
        writeln!(out, "{:<14} {:<8} {provider}", one.operation, one.algorithm)?;
    }
    Ok(())
}
