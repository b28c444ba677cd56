//! `shangmq ctl acl`: the rules for topics in the store of the running broker.

use std::error::Error;
use std::io::{self, Write};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};

use crate::auth::acl::{Permit, RuleAction};
use crate::auth::{RulesFor, WrittenRule};
use crate::config::Choice;
use crate::operator::{Client, Request, RulesList, RulesReport, StoredChange};

#[derive(Debug, Subcommand)]
pub(super) enum AclCommand {
    /// List the rules with their places.
    List {
        #[command(flatten)]
        subject: SubjectArguments,
    },
    /// Add rules, one for each topic, at the end of the list for a client id, for a user name or for everyone.
    Add {
        #[command(flatten)]
        subject: SubjectArguments,
        /// Add before the rule at this place of the list, counted from 1.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        at: Option<u64>,
        /// Only for messages or subscriptions with one of these QoS, such as 0,1.
        #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u8).range(0..=2))]
        qos: Option<Vec<u8>>,
        /// Only for messages with (true) or without (false) the retain flag.
        #[arg(long)]
        retain: Option<bool>,
        /// What the rules say.
        #[arg(value_parser = word::<Permit>())]
        permit: Permit,
        /// What the rules are about.
        #[arg(value_parser = word::<RuleAction>())]
        action: RuleAction,
        /// Filters as in the ACL file, with or without placeholders, or `eq FILTER`.
        #[arg(required = true)]
        topics: Vec<String>,
    },
    /// Remove the rule at a place of a list, or all of them.
    Remove {
        #[command(flatten)]
        subject: SubjectArguments,
        /// The place, counted from 1; the rules after it move up.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), required_unless_present = "whole_list")]
        at: Option<u64>,
        /// All rules of the list.
        #[arg(long, conflicts_with = "at")]
        whole_list: bool,
    },
}

/// A word as in the configuration.
fn word<C: Choice + Send + Sync>() -> impl TypedValueParser<Value = C> {
    let words = PossibleValuesParser::new(C::WORDS.iter().map(|(word, _)| *word));
    words.try_map(|word| C::from_word(&word).ok_or("it is none of the words"))
}

#[derive(Debug, Args)]
#[group(multiple = false)]
pub(super) struct SubjectArguments {
    /// Rules for clients with this identifier.
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,
    /// Rules for clients with this verified user name.
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
    /// Rules for all clients.
    #[arg(long)]
    everyone: bool,
}

impl SubjectArguments {
    fn subject(self) -> Option<RulesFor> {
        let named = self.client_id.map(RulesFor::ClientId).or(self.username.map(RulesFor::Username));
        named.or(self.everyone.then_some(RulesFor::Everyone))
    }

    fn required(self) -> io::Result<RulesFor> {
        let none = || io::Error::new(io::ErrorKind::InvalidInput, "name --client-id, --username or --everyone");
        self.subject().ok_or_else(none)
    }
}

impl AclCommand {
    /// Asks, and writes the answer.
    pub(super) fn run(
        self,
        client: &Client,
        json: bool,
        out: &mut impl Write,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let place = |at: Option<u64>| at.map(usize::try_from).transpose();
        let (request, done) = match self {
            AclCommand::List { subject } => return list(client, subject.subject(), json, out),
            AclCommand::Add { subject, at, qos, retain, permit, action, topics } => {
                let rule = |topic| WrittenRule { permit, action, topic, qos: qos.clone(), retain };
                let rules = topics.into_iter().map(rule).collect();
                (Request::RulesAdd { subject: subject.required()?, place: place(at)?, rules }, "added")
            }
            AclCommand::Remove { subject, at, .. } => {
                (Request::RulesRemove { subject: subject.required()?, place: place(at)? }, "removed")
            }
        };
        let change: StoredChange = client.ask(request)?;
        Ok(super::stored(change, json, (done, "there are no such rules", "auth.store.acl"), out)?)
    }
}

fn list(
    client: &Client,
    of: Option<RulesFor>,
    json: bool,
    out: &mut impl Write,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let all = super::every_part(|last: Option<&RulesReport>| {
        let after = last.map(|list| list.subject.clone());
        client.ask(Request::Rules { of: of.clone(), after }).map(|RulesList { lists, more }| (lists, more))
    })?;
    if json {
        return Ok(writeln!(out, "{}", serde_json::to_string(&all)?)?);
    }
    if all.is_empty() {
        return Ok(writeln!(out, "there are no such rules in the store")?);
    }
    for list in &all {
        writeln!(out, "{}", list.subject)?;
        for (place, rule) in (1..).zip(&list.rules) {
            writeln!(out, "  {place} {rule}")?;
        }
    }
    Ok(())
}
