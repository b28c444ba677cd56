//! Takes new certificates, options and rules into a running broker: all of them or, when anything is wrong, none.

use super::Operator;
use crate::auth::Reading;
use crate::config::{Config, ConfigError, ConfigErrors, ListenerConfig, Written};
use crate::dev_certs::now;
use crate::net::{Listener, Security};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tracing::{error, info, warn};

/// Where the configuration came from, to be read again.
#[derive(Debug, Clone)]
pub enum Source {
    /// A file, or none for the embedded configuration, and the environment laid over it.
    File { file: Option<PathBuf>, environment: Vec<(String, String)>, written: Written },
    /// The program that runs the broker as a library gave it: only the files that it names are read again.
    Program,
}

/// What asked for a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// SIGHUP.
    Signal,
    /// `shangmq ctl reload`.
    Command,
    /// A certificate, key, CA or password file has changed. The configuration itself and the files of `[auth]` are left alone: an operator
    /// who edits them says when they are complete.
    Files,
}

/// How much a reload reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// The configuration and everything that it names.
    Whole,
    /// The files that listeners name.
    Files,
}

impl Trigger {
    fn extent(self) -> Extent {
        match self {
            Trigger::Signal | Trigger::Command => Extent::Whole,
            Trigger::Files => Extent::Files,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Trigger::Signal => "SIGHUP",
            Trigger::Command => "command",
            Trigger::Files => "changed files",
        }
    }
}

/// What a reload did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reloaded {
    /// Listeners whose new connections are secured otherwise than before.
    pub listeners: Vec<String>,
    /// Whether the configuration and the files of `[auth]` were read.
    pub auth: bool,
    /// Keys that differ from those of the start and take effect at the next one.
    pub restart_needed: Vec<String>,
    /// What is allowed and may yet not be meant.
    pub warnings: Vec<String>,
}

impl Reloaded {
    /// What is in force now and may not have been before, in words.
    pub fn effect(&self) -> String {
        let auth = "rules for topics, users and passwords were read again and are in force";
        let secured = || format!("new connections of {} are secured by what was read", self.listeners.join(", "));
        match (self.auth, self.listeners.is_empty()) {
            (true, true) => format!("{auth}; how connections are secured has not changed"),
            (true, false) => format!("{auth}; {}", secured()),
            (false, true) => "nothing has changed for new connections of any listener".to_owned(),
            (false, false) => secured(),
        }
    }
}

/// Why the last reload of each extent was refused, as long as what it was to put in force is not: empty is that nothing was refused.
#[derive(Debug, Default)]
pub(super) struct Refused {
    /// Files that are good say nothing of a configuration that is not.
    pub(super) whole: Vec<String>,
    pub(super) files: Vec<String>,
}

/// Everything that a reload would put in force.
struct Plan {
    securities: Vec<(Arc<Listener>, Security)>,
    auth: Option<Reading>,
    outcome: Reloaded,
}

/// Keys of `[auth]` that are read at the start alone.
const AUTH_LIMITS: [&str; 4] =
    ["max_concurrent_checks", "max_waiting_checks", "max_waiting_checks_per_address", "max_failures_per_minute"];
/// Keys of `[auth.store]` that are read at the start alone.
const STORED_LIMITS: [&str; 2] = ["max_users", "max_rules"];
/// Keys of a listener that are in force for its next connection.
const LISTENER_KEYS: [&str; 8] = [
    "protocols",
    "handshake_timeout",
    "gm_only",
    "alpn",
    "alpn_required",
    "ssl_options",
    "rfc8998_options",
    "tlcp_options",
];

impl Operator {
    /// Reads again what can change while the broker runs, and puts it in force when all of it is good. Connections that are established
    /// go on as they are.
    ///
    /// # Errors
    /// Every mistake there is. Everything then stays as it was.
    pub fn reload(&self, trigger: Trigger) -> Result<Reloaded, ConfigErrors> {
        let _only = self.reloading.lock();
        let extent = trigger.extent();
        let planned = match extent {
            Extent::Files => self.plan(None, false),
            Extent::Whole => self.plan_all(),
        };
        let trigger = trigger.name();
        match planned {
            Ok(plan) => {
                let outcome = self.put_in_force(plan);
                self.metrics.operations.reloaded(true);
                self.note_reloads(|refused| {
                    // A reload of everything reads the files too.
                    refused.files.clear();
                    if extent == Extent::Whole {
                        refused.whole.clear();
                    }
                });
                self.look_for_alarms(now());
                for warning in &outcome.warnings {
                    warn!("{warning}");
                }
                if !outcome.restart_needed.is_empty() {
                    let keys = outcome.restart_needed.join(", ");
                    warn!(trigger, keys, "reload: these keys have changed and take effect at the next start only");
                }
                info!(trigger, "reload done; {}", outcome.effect());
                Ok(outcome)
            }
            Err(errors) => {
                for cause in errors.as_slice() {
                    error!(trigger, %cause, "reload refused; everything stays as it was, correct the mistake and reload again");
                }
                let causes = errors.as_slice().iter().map(ToString::to_string).collect();
                self.metrics.operations.reloaded(false);
                self.note_reloads(|refused| match extent {
                    Extent::Whole => refused.whole = causes,
                    Extent::Files => refused.files = causes,
                });
                self.look_for_alarms(now());
                Err(errors)
            }
        }
    }

    /// As [`reload`](Self::reload), on a thread that may wait for files.
    ///
    /// # Errors
    /// As [`reload`](Self::reload).
    pub async fn reload_aside(self: &Arc<Self>, trigger: Trigger) -> Result<Reloaded, ConfigErrors> {
        match self.aside(move |operator| operator.reload(trigger)).await {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    /// Notes which refusals of reloads last.
    pub(super) fn note_reloads(&self, change: impl FnOnce(&mut Refused)) {
        let mut refused = self.refused.lock();
        change(&mut refused);
        self.metrics.operations.hold_in_force(refused.whole.is_empty() && refused.files.is_empty());
    }

    fn plan_all(&self) -> Result<Plan, ConfigErrors> {
        let Source::File { file, environment, written } = &self.source else { return self.plan(None, true) };
        let examined = Config::examine(file.as_deref(), environment.iter().cloned(), Some(written));
        ConfigErrors::check(examined.errors)?;
        // Without a configuration there is at least one mistake.
        let Some(config) = examined.config else { return self.plan(None, true) };
        self.check_policy(&config)?;
        let mut plan = self.plan(Some(&config), true)?;
        plan.outcome.warnings.splice(..0, config.warnings.iter().cloned());
        let known: Vec<String> = config.listeners.iter().map(ListenerConfig::id).collect();
        let lasts = |key: &&str| !self.takes_effect(key, &known);
        plan.outcome.restart_needed =
            written.difference(&examined.written).into_iter().filter(lasts).map(str::to_owned).collect();
        Ok(plan)
    }

    /// Whether `crypto.gm_only` can hold from now on: what the configuration no longer has, or has elsewhere, runs to the next start as it
    /// is, and is held to the policy by nobody.
    fn check_policy(&self, config: &Config) -> Result<(), ConfigErrors> {
        if !config.crypto.gm_only {
            return Ok(());
        }
        let refused = |what: &str| {
            let place = &config.crypto.gm_only_place;
            place.error(format!("{what} and runs to the next start; restart the broker to set crypto.gm_only"))
        };
        let open = |address: IpAddr| !address.to_canonical().is_loopback();
        let mut errors = Vec::new();
        for listener in &self.listeners {
            let id = listener.id();
            match listener.security() {
                Some(security)
                    if security.config().gm_only || config.listeners.iter().any(|other| *other.id() == **id) => {}
                Some(_) => errors.push(refused(&format!("the listener {id} is not of SM2, SM3 and SM4 alone"))),
                None if open(listener.bound_to()) => {
                    errors.push(refused(&format!("the listener {id} does not encrypt, is not bound to loopback")));
                }
                None => {}
            }
        }
        if self.metrics_bind.is_some_and(|bind| open(bind.ip())) {
            errors.push(refused("the metrics endpoint does not encrypt, is not bound to loopback"));
        }
        ConfigErrors::check(errors)
    }

    /// Opens every file there is, by `config` or by what is in force.
    fn plan(&self, config: Option<&Config>, with_auth: bool) -> Result<Plan, ConfigErrors> {
        let mut errors: Vec<ConfigError> = Vec::new();
        let mut plan = Plan { securities: Vec::new(), auth: None, outcome: Reloaded::default() };
        for listener in &self.listeners {
            let found = config.map(|config| config.listeners.iter().find(|other| *other.id() == **listener.id()));
            // One that the configuration no longer has runs to the next start as it is.
            let Some(found) = found.map_or(Some(None), |found| found.map(Some)) else { continue };
            match listener.read_security(found.and_then(|found| found.kind.tls())) {
                Ok(Some(security)) => {
                    plan.outcome.warnings.extend(security.warnings(listener.id(), now()));
                    plan.securities.push((Arc::clone(listener), security));
                }
                Ok(None) => {}
                Err(found) => errors.extend(found),
            }
            plan.outcome.warnings.extend(found.into_iter().flat_map(ListenerConfig::warnings));
        }
        if with_auth {
            match self.auth.read(config.map(|config| &config.auth)) {
                Ok(reading) => plan.auth = Some(reading),
                Err(found) => errors.extend(found.into_errors()),
            }
        }
        ConfigErrors::check(errors)?;
        Ok(plan)
    }

    fn put_in_force(&self, plan: Plan) -> Reloaded {
        let Plan { securities, auth, mut outcome } = plan;
        outcome.auth = auth.is_some();
        if let Some(reading) = auth {
            self.auth.put_in_force(reading);
        }
        for (listener, security) in securities {
            if listener.secure_by(security) {
                outcome.listeners.push(listener.id().to_string());
            }
        }
        outcome
    }

    /// Whether a reload puts a key in force. `known` are the listeners of the configuration that was read.
    fn takes_effect(&self, key: &str, known: &[String]) -> bool {
        let mut parts = key.split('.');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some("auth"), Some("store"), Some(name), _) => !STORED_LIMITS.contains(&name),
            (Some("crypto"), Some("gm_only"), ..) => true,
            (Some("auth"), Some(name), ..) => !AUTH_LIMITS.contains(&name),
            (Some("listeners"), Some(kind), Some(name), Some(option)) => {
                let id = format!("{kind}:{name}");
                LISTENER_KEYS.contains(&option)
                    && known.contains(&id)
                    && self.listeners.iter().any(|listener| **listener.id() == *id)
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Who had taken a right away was told that nothing had changed.
    #[test]
    fn a_reload_says_what_it_read_again() {
        let of = |auth, listeners: &[&str]| {
            let listeners = listeners.iter().map(ToString::to_string).collect();
            Reloaded { auth, listeners, ..Reloaded::default() }.effect()
        };
        let auth = "rules for topics, users and passwords were read again and are in force; ";
        assert_eq!(of(false, &[]), "nothing has changed for new connections of any listener");
        assert_eq!(of(true, &[]), format!("{auth}how connections are secured has not changed"));
        let secured = "new connections of ssl:a, wss:b are secured by what was read";
        assert_eq!(of(false, &["ssl:a", "wss:b"]), secured);
        assert_eq!(of(true, &["ssl:a", "wss:b"]), format!("{auth}{secured}"));
    }
}
