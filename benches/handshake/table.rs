//! The table: rates of the server side, and their ratios to the baselines, as medians over rounds in which every case has its
//! turn.

use std::{
    io::{self, Write},
    path::PathBuf,
    time::Duration,
};

use serde_json::json;

use crate::cases::{Baseline, Case};

const ROUNDS: usize = 41;
/// Handshakes of a case in each round.
const PER_ROUND: u32 = 12;

struct Row<'a> {
    case: &'a Case,
    /// Handshakes per second by the server's time alone, one for each round.
    rates: Vec<f64>,
    both: Vec<f64>,
}

/// Samples all cases, prints the table and writes it beside the reports of criterion.
pub fn make(cases: &[Case]) -> io::Result<()> {
    let mut rows: Vec<Row<'_>> = cases.iter().map(|case| Row { case, rates: Vec::new(), both: Vec::new() }).collect();
    for _ in 0..ROUNDS {
        for row in &mut rows {
            let (mut server, mut both) = (Duration::ZERO, Duration::ZERO);
            for _ in 0..PER_ROUND {
                let spent = row.case.handshake();
                server += spent.server;
                both += spent.both;
            }
            row.rates.push(f64::from(PER_ROUND) / server.as_secs_f64());
            row.both.push(f64::from(PER_ROUND) / both.as_secs_f64());
        }
    }
    let text = render(&rows);
    let folder = output_folder()?;
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("handshake-table.txt"), &text)?;
    std::fs::write(folder.join("handshake-table.json"), serde_json::to_vec_pretty(&machine_readable(&rows))?)?;
    let mut out = io::stdout().lock();
    writeln!(out, "\n{text}")?;
    writeln!(out, "written to {}", folder.join("handshake-table.txt").display())
}

fn render(rows: &[Row<'_>]) -> String {
    let mut text = format!(
        "crypto.provider {}\n\
         handshakes per second and core, server side only; median of {ROUNDS} interleaved rounds, spread p10 to p90\n\
         ratio: to full TLS 1.2 P-256, for TLS 1.3 and RFC 8998 also to full TLS 1.3 P-256, in the same round\n\n\
         {:<62} {:>9} {:>17} {:>9} {:>9} {:>9}\n",
        crate::provider_name(),
        "handshake",
        "server/s",
        "spread",
        "both/s",
        "to 1.2",
        "to 1.3"
    );
    for row in rows {
        let to_tls12 = ratio(rows, row, Baseline::Tls12P256);
        let to_tls13 = match row.case.baseline {
            Baseline::Tls13P256 => format!("{:.2}", ratio(rows, row, Baseline::Tls13P256)),
            Baseline::Tls12P256 => String::new(),
        };
        text.push_str(&format!(
            "{:<62} {:>9.0} {:>17} {:>9.0} {:>9.2} {:>9}\n",
            row.case.name,
            quantile(&row.rates, 50),
            format!("{:.0}-{:.0}", quantile(&row.rates, 10), quantile(&row.rates, 90)),
            quantile(&row.both, 50),
            to_tls12,
            to_tls13,
        ));
    }
    text
}

fn machine_readable(rows: &[Row<'_>]) -> serde_json::Value {
    let row = |row: &Row<'_>| {
        json!({
            "name": row.case.name,
            "suite": row.case.suite,
            "mutual": row.case.mutual,
            "resumed": row.case.resumed,
            "server_per_second": quantile(&row.rates, 50),
            "server_per_second_p10": quantile(&row.rates, 10),
            "server_per_second_p90": quantile(&row.rates, 90),
            "both_sides_per_second": quantile(&row.both, 50),
            "ratio_to_tls12_p256": ratio(rows, row, Baseline::Tls12P256),
            "ratio_to_tls13_p256": ratio(rows, row, Baseline::Tls13P256),
        })
    };
    json!({ "crypto_provider": crate::provider_name(), "rounds": ROUNDS, "handshakes_per_round": PER_ROUND, "rows": rows.iter().map(row).collect::<Vec<_>>() })
}

/// Median over the rounds of the ratio to a baseline in the same round; 0 without that baseline.
fn ratio(rows: &[Row<'_>], row: &Row<'_>, baseline: Baseline) -> f64 {
    let prefix = match baseline {
        Baseline::Tls12P256 => "tls1.2 P-256",
        Baseline::Tls13P256 => "tls1.3 P-256",
    };
    let base = rows.iter().find(|row| row.case.name.starts_with(prefix) && !row.case.mutual && !row.case.resumed);
    let Some(base) = base else { return 0.0 };
    let ratios: Vec<f64> = row.rates.iter().zip(&base.rates).map(|(rate, base)| rate / base).collect();
    quantile(&ratios, 50)
}

/// The value below which `percent` of the values lie, by the nearest rank.
fn quantile(values: &[f64], percent: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len().saturating_sub(1) * percent + 50) / 100;
    sorted.get(rank).copied().unwrap_or(0.0)
}

/// Where criterion writes: `CRITERION_HOME`, or `criterion` in the target folder that this program was built into.
fn output_folder() -> io::Result<PathBuf> {
    if let Some(home) = std::env::var_os("CRITERION_HOME") {
        return Ok(home.into());
    }
    let program = std::env::current_exe()?;
    // target/release/deps/program
    let target = program.ancestors().nth(3).ok_or_else(|| io::Error::other("not run from a target folder"))?;
    Ok(target.join("criterion"))
}
