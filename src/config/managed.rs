//! `managed_certs`: certificates of a block by the names of bundles, one of them for who asks for none in particular, others for the
//! server names that clients ask for. Which file holds what is for `bundle` to know.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::section::{Contents, FileRef, Place, Section};
use super::tls::{IdentityFiles, TlsConfig};
use super::tree::Value;
use super::value::{Choice, FromValue, Problem};
use crate::bundle::{BundleId, Bundles, Part};

/// Bundles of one block.
const MAX_MANAGED: usize = 64;

/// A name that clients ask for (RFC 6066 section 3): whole, or with `*` for its first label.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerName {
    /// In lower case and without the `*.`.
    name: Box<str>,
    wildcard: bool,
}

impl ServerName {
    /// How well it fits what a client asks for: 2 wholly, 1 by its wildcard, which stands for one label; 0 not at all.
    pub fn fits(&self, asked: &str) -> u8 {
        let asked = asked.strip_suffix('.').unwrap_or(asked);
        if !self.wildcard {
            return if asked.eq_ignore_ascii_case(&self.name) { 2 } else { 0 };
        }
        let below = asked
            .split_once('.')
            .is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(&self.name));
        u8::from(below)
    }
}

impl FromStr for ServerName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<ServerName, &'static str> {
        let (bare, wildcard) = text.strip_prefix("*.").map_or((text, false), |bare| (bare, true));
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if bare.len() > 253 || !bare.split('.').all(label) {
            return Err("not a host name; an internationalized name is written in its form `xn--…`");
        }
        if bare.parse::<std::net::IpAddr>().is_ok() {
            return Err("an address is never asked for as a server name");
        }
        Ok(ServerName { name: bare.to_ascii_lowercase().into(), wildcard })
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.wildcard { "*." } else { "" }, self.name)
    }
}

impl FromValue for ServerName {
    fn from_value(value: &Value) -> Result<ServerName, Problem> {
        let text = String::from_value(value)?;
        text.parse().map_err(|reason| {
            Problem::new(format!("`{}`: {reason}", text.escape_default()))
                .suggest("write \"mqtt.example.com\" or \"*.example.com\"")
        })
    }
}

/// One entry of `managed_certs`.
#[derive(Debug, Clone)]
pub(super) struct Managed {
    pub id: BundleId,
    pub sni: Option<ServerName>,
    pub place: Place,
}

/// What a block serves: to who asks for no name that is served, and by name.
#[derive(Debug)]
pub(super) struct Served {
    /// The bundle that is the block's own certificate, unless that is a file.
    pub default: Option<Managed>,
    pub by_name: Vec<Managed>,
}

/// Reads `managed_certs`, a table or a list of tables. `own`: the block has a certificate of its own, which is then that of who asks for
/// no name; otherwise the first bundle is. `None` after a mistake.
pub(super) fn read(section: &mut Section<'_>, own: bool) -> Option<Served> {
    const KEY: &str = "managed_certs";
    let before = section.report().count();
    if !section.has(KEY) {
        let _known = section.list(KEY);
        return Some(Served { default: None, by_name: Vec::new() });
    }
    let entries = if section.is_table(KEY) { vec![section.section(KEY)] } else { section.list(KEY) };
    if entries.is_empty() && section.report().count() == before {
        section.error(KEY, "names no bundle", Some("write { bundle_name = \"NAME\" }, or remove the key".to_owned()));
    }
    if entries.len() > MAX_MANAGED {
        section.error(KEY, format!("more than {MAX_MANAGED} bundles"), None);
    }
    let mut served = Served { default: None, by_name: Vec::<Managed>::new() };
    for mut entry in entries {
        let name: Option<String> = entry.optional("bundle_name");
        let namespace: Option<String> = entry.optional("namespace");
        let sni: Option<ServerName> = entry.optional("sni");
        if !entry.has("bundle_name") {
            entry.error(
                "bundle_name",
                "missing",
                Some("name a bundle; `shangmq certs bundle list` shows them".to_owned()),
            );
        }
        let place = entry.place_of("bundle_name");
        if entry.has("sni")
            && sni.as_ref().is_some_and(|sni| served.by_name.iter().any(|other| other.sni.as_ref() == Some(sni)))
        {
            entry.error("sni", "is there twice", Some("keep one of them".to_owned()));
        }
        let id = name.and_then(|name| match BundleId::new(namespace.as_deref(), &name) {
            Ok(id) => Some(id),
            Err(bad) => {
                entry.error("bundle_name", bad.to_string(), None);
                None
            }
        });
        let needs_name = own || served.default.is_some();
        if needs_name && sni.is_none() && !entry.has("sni") {
            let reason = "without sni nobody would get this bundle";
            entry.error("bundle_name", reason, Some("add sni = \"mqtt.example.com\" or \"*.example.com\"".to_owned()));
        }
        entry.finish();
        let Some(id) = id else { continue };
        let managed = Managed { id, sni, place };
        if managed.sni.is_some() {
            served.by_name.push(managed.clone());
        }
        if !needs_name {
            served.default = Some(managed);
        }
    }
    (section.report().count() == before).then_some(served)
}

/// What becomes of a client that asks for a name which no bundle is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UnknownName {
    Default,
    Refuse,
}

impl Choice for UnknownName {
    const WORDS: &'static [(&'static str, UnknownName)] =
        &[("default", UnknownName::Default), ("refuse", UnknownName::Refuse)];
}

/// What is served by name.
pub(super) fn named<T>(managed: Option<Served>, read: impl Fn(&Managed) -> T) -> Vec<(ServerName, T)> {
    let by_name = managed.map(|managed| managed.by_name).unwrap_or_default();
    by_name.iter().filter_map(|managed| Some((managed.sni.clone()?, read(managed)))).collect()
}

impl Managed {
    /// One part of the bundle as if it were a file.
    pub fn file(&self, data_dir: &Path, part: Part) -> FileRef {
        FileRef::managed(data_dir, &self.id, part, self.place.clone())
    }

    /// A certificate and its key.
    pub fn identity(&self, data_dir: &Path, chain: Part, key: Part) -> IdentityFiles {
        let (certfile, keyfile) = (self.file(data_dir, chain), self.file(data_dir, key));
        IdentityFiles { certfile, keyfile, password: None, password_place: self.place.clone() }
    }
}

impl TlsConfig {
    /// Every name that a bundle of some block is for, each once.
    pub fn server_names(&self) -> Vec<ServerName> {
        let tls = self.tls.iter().flat_map(|block| block.by_name.iter().map(|(name, _)| name));
        let rfc8998 = self.rfc8998.iter().flat_map(|block| block.by_name.iter().map(|(name, _)| name));
        let tlcp = self.tlcp.iter().flat_map(|block| block.by_name.iter().map(|(name, _)| name));
        let mut names: Vec<ServerName> = tls.chain(rfc8998).chain(tlcp).cloned().collect();
        names.sort();
        names.dedup();
        names
    }

    /// The same listener with the certificates for a name in the place of its own, in each block that has some for it.
    pub fn for_name(&self, name: &ServerName) -> TlsConfig {
        let mut config = self.clone();
        if let Some(block) = &mut config.tls
            && let Some((_, files)) = block.by_name.iter().find(|(known, _)| known == name)
        {
            block.identities = vec![files.clone()];
        }
        if let Some(block) = &mut config.rfc8998
            && let Some((_, files)) = block.by_name.iter().find(|(known, _)| known == name)
        {
            block.identity = files.clone();
        }
        if let Some(block) = &mut config.tlcp
            && let Some((_, [sign, enc])) = block.by_name.iter().find(|(known, _)| known == name)
        {
            (block.sign, block.enc) = (sign.clone(), enc.clone());
        }
        config
    }

    /// Every file that is named, of passwords too, and the directory of every bundle, which changes when the bundle does, with the key that
    /// seals them.
    pub fn files(&self) -> Vec<PathBuf> {
        let by_name = self.server_names();
        let by_name = by_name.iter().flat_map(|name| self.for_name(name).own_files());
        let keys = self.tls.iter().filter_map(|block| block.psk_file.as_ref()).map(|file| file.path().to_owned());
        let sealed = self.managed().filter_map(|(_, file)| match file.contents() {
            Contents::Managed { data_dir, .. } => Some(Bundles::in_data_dir(data_dir).node_key_file()),
            Contents::File | Contents::Inline(_) => None,
        });
        let mut files: Vec<PathBuf> = self.own_files().into_iter().chain(by_name).chain(keys).chain(sealed).collect();
        files.sort();
        files.dedup();
        files
    }

    /// The keys that refer to a bundle, some more than once.
    pub fn keys_of<'a>(&'a self, id: &'a BundleId) -> impl Iterator<Item = &'a str> {
        self.managed().filter(move |(used, _)| *used == id).map(|(_, file)| file.key())
    }

    /// The certificates that are parts of bundles.
    fn managed(&self) -> impl Iterator<Item = (&BundleId, &FileRef)> {
        let tls =
            self.tls.iter().flat_map(|block| block.identities.iter().chain(block.by_name.iter().map(|(_, one)| one)));
        let rfc8998 = self
            .rfc8998
            .iter()
            .flat_map(|block| std::iter::once(&block.identity).chain(block.by_name.iter().map(|(_, one)| one)));
        let tlcp = self
            .tlcp
            .iter()
            .flat_map(|block| [&block.sign].into_iter().chain(block.by_name.iter().map(|(_, [one, _])| one)));
        let trusted =
            self.client_auth().into_iter().filter_map(|(_, auth)| auth.trust()).map(|trust| &trust.cacertfile);
        let files = tls.chain(rfc8998).chain(tlcp).map(|files| &files.certfile).chain(trusted);
        files.filter_map(|file| match file.contents() {
            Contents::Managed { id, .. } => Some((id, file)),
            Contents::File | Contents::Inline(_) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_wholly_or_by_one_label() {
        let name = |text: &str| text.parse::<ServerName>().unwrap();
        assert_eq!(name("mqtt.example.com").fits("MQTT.Example.com."), 2);
        assert_eq!(name("mqtt.example.com").fits("a.mqtt.example.com"), 0);
        assert_eq!(name("*.Example.com").fits("mqtt.example.COM"), 1);
        for asked in ["example.com", "a.b.example.com", ".example.com", "mqtt.example.org", ""] {
            assert_eq!(name("*.example.com").fits(asked), 0, "{asked}");
        }
        for bad in ["", "*", "*.", "a.*.b", "a..b", "-a", "192.0.2.1", "例子.com", "a b"] {
            assert!(bad.parse::<ServerName>().is_err(), "{bad}");
        }
        assert_eq!(name("*.Example.com").to_string(), "*.example.com");
    }
}
