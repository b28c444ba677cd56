//! From the files that a listener's configuration names to the contexts that its handshakes use.
//!
//! Nothing stops at the first mistake: an operator who brings new certificates to a machine learns of all of them in one run.

use super::security::{Crowded, InUse, MAX_AUTHORITIES, Usage};
use super::sites::Sites;
use super::status::Status;
use crate::auth::PskStore;
use crate::bundle::{BundleError, BundleId, Bundles, Candidate};
use crate::causes::Causes;
use crate::config::{self, ConfigError, Contents, FileRef, IdentityFiles, Names, Origin, Place, TlsConfig};
use crate::dev_certs::now;
use crate::revocation::{Policy, Revocation};
use gm_tls::ContextError;
use gm_tls::cert::{Certificate, CertificateChain, Source};
use gm_tls::key::{KeyError, Password, PrivateKey};
use gm_tls::pair::{CertificatePair, PairError, check_pair, check_server_purpose, check_validity};
use gm_tls::psk::PskLookup;
use gm_tls::server::{
    self, AlpnPolicy, ClientAuth, ContextKind, Identity, Resumption, Rfc8998Options, ServerContexts, ServerOptions,
    TlcpOptions, TlsOptions, TlsVersion, VerifyMode,
};
use gm_tls::tickets::TicketKeys;
use std::collections::HashSet;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;

/// What was read and built.
pub(super) struct Loaded<C> {
    pub(super) contexts: C,
    pub(super) in_use: Vec<InUse>,
    pub(super) crowded: Vec<Crowded>,
    /// Every certificate that was read: those shown with their chains, and those trusted.
    pub(super) material: Vec<Arc<[u8]>>,
    pub(super) keys: Vec<Arc<PskStore>>,
    pub(super) policies: Vec<Arc<Policy>>,
}

/// Opens every file that `config` names, checks that what belongs together fits, and builds the contexts.
///
/// `alpn` are the application protocols to choose from, such as `mqtt` or `http/1.1`, `candidate` a bundle to read instead of the one in
/// force.
///
/// # Errors
/// Every mistake there is, each with the key that is at fault or that names the file which is.
pub(super) fn load(
    config: &TlsConfig,
    alpn: &[&[u8]],
    revocation: &Arc<Revocation>,
    scope: &str,
    tickets: &TicketKeys,
    candidate: Option<&Arc<Candidate>>,
) -> Result<Loaded<Sites>, Vec<ConfigError>> {
    let mut errors = Vec::new();
    let own = load_site(config, alpn, revocation, scope, tickets, candidate).map_err(|found| errors.extend(found));
    let mut named = Vec::new();
    for name in config.server_names() {
        match load_site(&config.for_name(&name), alpn, revocation, &format!("{scope} {name:?}"), tickets, candidate) {
            Ok(loaded) => named.push((name, loaded)),
            // What all of them have in common is wrong once.
            Err(found) => found.into_iter().for_each(|error| {
                if !errors.contains(&error) {
                    errors.push(error);
                }
            }),
        }
    }
    let Ok(own) = own else { return Err(errors) };
    if !errors.is_empty() {
        return Err(errors);
    }
    let Loaded { contexts, mut in_use, mut crowded, mut material, mut keys, mut policies } = own;
    let mut by_name = Vec::with_capacity(named.len());
    for (name, loaded) in named {
        in_use.extend(loaded.in_use);
        crowded.extend(loaded.crowded);
        material.extend(loaded.material);
        keys.extend(loaded.keys);
        policies.extend(loaded.policies);
        by_name.push((name, loaded.contexts));
    }
    // What several names have in common is there once.
    let mut seen = HashSet::with_capacity(in_use.len());
    in_use.retain(|one| seen.insert(one.identity()));
    crowded.dedup();
    let contexts = Sites { default: contexts, by_name, refuse_unknown: config.refuse_unknown_names };
    Ok(Loaded { contexts, in_use, crowded, material, keys, policies })
}

/// The contexts for clients that ask for one name.
fn load_site(
    config: &TlsConfig,
    alpn: &[&[u8]],
    revocation: &Arc<Revocation>,
    scope: &str,
    tickets: &TicketKeys,
    candidate: Option<&Arc<Candidate>>,
) -> Result<Loaded<ServerContexts>, Vec<ConfigError>> {
    let status = Status::new(revocation);
    let mut found = Found {
        gm_only: config.gm_only,
        errors: Vec::new(),
        missing: Vec::new(),
        in_use: Vec::new(),
        crowded: Vec::new(),
        material: Vec::new(),
        keys: Vec::new(),
        status,
        candidate,
    };
    let mut options = ServerOptions {
        alpn: AlpnPolicy {
            protocols: match &config.alpn {
                Some(names) => names.iter().map(|name| name.as_bytes().to_vec()).collect(),
                None => alpn.iter().map(|name| name.to_vec()).collect(),
            },
            strict: config.alpn_required,
        },
        gm_only: config.gm_only,
        scope: scope.to_owned(),
        ticket_keys: Some(tickets.clone()),
        ..ServerOptions::default()
    };
    let mut blocks: Vec<(ContextKind, &Place)> = Vec::new();
    if let Some(tls) = &config.tls {
        options.tls = found.tls_options(tls);
        blocks.push((ContextKind::Tls, &tls.place));
    }
    if let Some(rfc8998) = &config.rfc8998 {
        options.rfc8998 = found.rfc8998_options(rfc8998);
        blocks.push((ContextKind::Rfc8998, &rfc8998.place));
    }
    if let Some(tlcp) = &config.tlcp {
        options.tlcp = found.tlcp_options(tlcp);
        blocks.push((ContextKind::Tlcp, &tlcp.place));
    }
    options.staples = found.status.staples();
    // A block with mistakes is left out above; the others are still built, to know whether they can be.
    let whole = found.errors.is_empty();
    match ServerContexts::new(&options) {
        Ok(contexts) if whole => {
            let Found { in_use, crowded, material, keys, status, .. } = found;
            return Ok(Loaded { contexts, in_use, crowded, material, keys, policies: status.policies });
        }
        Err(ContextError::NothingEnabled) if !whole => {}
        Err(cause) => found.errors.push(in_block(&blocks, &cause)),
        Ok(_) => {}
    }
    Err(found.errors)
}

/// What was found of a listener so far. Its methods return `None` after they have added a mistake.
struct Found<'a> {
    gm_only: bool,
    errors: Vec<ConfigError>,
    /// Bundles that are not there, each said once.
    missing: Vec<BundleId>,
    in_use: Vec<InUse>,
    crowded: Vec<Crowded>,
    material: Vec<Arc<[u8]>>,
    keys: Vec<Arc<PskStore>>,
    status: Status,
    /// Looked at in the place of what is there.
    candidate: Option<&'a Arc<Candidate>>,
}

impl Found<'_> {
    fn bundles(&self, data_dir: &Path) -> Bundles {
        Bundles::in_data_dir(data_dir).trying(self.candidate)
    }

    fn tls_options(&mut self, config: &config::TlsOptions) -> Option<TlsOptions> {
        let identities: Vec<Option<Identity>> =
            config.identities.iter().map(|files| self.identity(ContextKind::Tls, files)).collect();
        for (files, identity) in config.identities.iter().zip(&identities) {
            self.staple(&files.certfile, config.stapling.as_ref(), identity.as_ref().map(|one| &one.chain));
        }
        let client_auth = self.client_auth(ContextKind::Tls, &config.client_auth);
        let ciphers = self.ciphers(ContextKind::Tls, &config.ciphers, &config.client_auth);
        let groups = self.names(&config.groups, server::check_groups(&config.groups.names));
        let names = &config.signature_algorithms;
        let signature_algorithms = self.names(names, server::check_signature_algorithms(&names.names));
        let psk = config.psk_file.as_ref().map(|file| self.pre_shared(file));
        Some(TlsOptions {
            psk: match psk {
                Some(read) => Some(read?),
                None => None,
            },
            client_auth: client_auth?,
            min_version: version(config.versions.min),
            max_version: version(config.versions.max),
            ciphers: ciphers?,
            groups: Some(groups?.join(":")).filter(|groups| !groups.is_empty()),
            signature_algorithms: signature_algorithms?,
            honor_cipher_order: config.honor_cipher_order,
            security_level: config.security_level,
            resumption: Resumption {
                tickets: config.session_tickets,
                ids: config.reuse_sessions,
                ..Resumption::default()
            },
            ..TlsOptions::new(identities.into_iter().collect::<Option<_>>()?)
        })
    }

    fn rfc8998_options(&mut self, config: &config::Rfc8998Options) -> Option<Rfc8998Options> {
        let identity = self.identity(ContextKind::Rfc8998, &config.identity);
        let chain = identity.as_ref().map(|one| &one.chain);
        self.staple(&config.identity.certfile, config.stapling.as_ref(), chain);
        let client_auth = self.client_auth(ContextKind::Rfc8998, &config.client_auth);
        let ciphers = self.ciphers(ContextKind::Rfc8998, &config.ciphers, &config.client_auth);
        let groups = self.names(&config.groups, server::check_rfc8998_groups(&config.groups.names));
        Some(Rfc8998Options {
            client_auth: client_auth?,
            ciphers: ciphers?,
            groups: Some(groups?.join(":")).filter(|groups| !groups.is_empty()),
            honor_cipher_order: config.honor_cipher_order,
            security_level: config.security_level,
            resumption: Resumption { tickets: config.session_tickets, ..Resumption::default() },
            ..Rfc8998Options::new(identity?)
        })
    }

    fn tlcp_options(&mut self, config: &config::TlcpOptions) -> Option<TlcpOptions> {
        let sign = self.files(ContextKind::Tlcp, Usage::Signing, &config.sign);
        let enc = self.files(ContextKind::Tlcp, Usage::Encryption, &config.enc);
        self.staple(&config.sign.certfile, config.stapling.as_ref(), sign.chain.as_ref());
        let pair = self.pair(config, sign, enc);
        let client_auth = self.client_auth(ContextKind::Tlcp, &config.client_auth);
        let ciphers = self.ciphers(ContextKind::Tlcp, &config.ciphers, &config.client_auth);
        Some(TlcpOptions {
            client_auth: client_auth?,
            ciphers: ciphers?,
            honor_cipher_order: config.honor_cipher_order,
            security_level: config.security_level,
            resumption: Resumption { ids: config.reuse_sessions, ..Resumption::default() },
            ..TlcpOptions::new(pair?)
        })
    }

    fn pair(&mut self, config: &config::TlcpOptions, sign: Half, enc: Half) -> Option<CertificatePair> {
        let (Half { chain: sign, key: sign_key }, Half { chain: enc, key: enc_key }) = (sign, enc);
        let (sign, enc) = (sign?, enc?);
        let (Some(sign_key), Some(enc_key)) = (sign_key, enc_key) else {
            // Without the keys it can still be said whether the certificates belong together.
            check_pair(&sign, &enc).map_err(|cause| self.add(at_fault(config, &cause), &cause)).ok()?;
            return None;
        };
        let pair = CertificatePair::new(sign, sign_key, enc, enc_key);
        let pair = pair.map_err(|cause| self.add(at_fault(config, &cause), &cause)).ok()?;
        self.check(&config.sign.certfile, server::check_pair(&pair))?;
        Some(pair)
    }

    /// A certificate and its key, which belong together and fit the family.
    fn identity(&mut self, kind: ContextKind, files: &IdentityFiles) -> Option<Identity> {
        let before = self.errors.len();
        let Half { chain, key } = self.files(kind, Usage::Single, files);
        let identity = Identity { chain: chain?, key: key? };
        match server::check_identity(kind, &identity) {
            Err(cause @ ContextError::KeyMismatch { .. }) => self.add(&files.keyfile, &cause),
            checked => self.check(&files.certfile, checked).unwrap_or_default(),
        }
        (self.errors.len() == before).then_some(identity)
    }

    /// A certificate, which must be valid now, and its key.
    fn files(&mut self, kind: ContextKind, usage: Usage, files: &IdentityFiles) -> Half {
        let file = &files.certfile;
        let chain = self.chain(file);
        if let Some(chain) = &chain {
            self.check(file, check_validity(&chain.leaf, &chain.origin, now()));
            self.check(file, check_server_purpose(&chain.leaf, &chain.origin));
            let certificate = chain.leaf.clone();
            self.in_use.push(InUse { kind, usage, file: file.path().to_owned(), certificate });
            self.read(kind, file, std::iter::once(&chain.leaf).chain(&chain.intermediates));
        }
        // Errors about two files say which field names which.
        let chain = chain.map(|chain| CertificateChain { origin: named(file), ..chain });
        let file = &files.keyfile;
        let password = match &files.password {
            Some(secret) => match Password::resolve(secret.expose()) {
                Ok(password) => Some(password),
                Err(cause) => {
                    self.errors.push(files.password_place.error(Causes(&cause).to_string()));
                    return Half { chain, key: None };
                }
            },
            None => None,
        };
        let key = self.key(files, password.as_ref());
        Half { chain, key: key.map(|key| key.with_origin(named(file))) }
    }

    /// Pre-shared keys. Their digest stands for them among what was read, so that other keys are noticed.
    fn pre_shared(&mut self, file: &FileRef) -> Option<Arc<dyn PskLookup>> {
        let keys = Arc::new(self.check(file, PskStore::load(file.path()))?);
        self.material.push(keys.digest().into());
        self.keys.push(Arc::clone(&keys));
        Some(keys)
    }

    fn chain(&mut self, file: &FileRef) -> Option<CertificateChain> {
        match file.contents() {
            Contents::File => self.check(file, CertificateChain::from_file("", file.path())),
            Contents::Inline(text) => {
                self.check(file, CertificateChain::from_pem(Source::new(file.field()), text.expose().as_bytes()))
            }
            Contents::Managed { data_dir, id, part } => {
                let text = self.managed(file, self.bundles(data_dir).part(id, *part))?;
                self.check(file, CertificateChain::from_pem(Source::new(format!("{part} of the bundle {id}")), &text))
            }
        }
    }

    fn key(&mut self, files: &IdentityFiles, password: Option<&Password>) -> Option<PrivateKey> {
        let file = &files.keyfile;
        let read = match file.contents() {
            Contents::File => PrivateKey::from_file("", file.path(), password),
            Contents::Inline(text) => {
                PrivateKey::from_pem(Source::new(file.field()), text.expose().as_bytes(), password)
            }
            Contents::Managed { data_dir, id, part } => {
                return self.managed(file, self.bundles(data_dir).private_key(id, *part));
            }
        };
        let wrong = |cause: KeyError| {
            let error = file.error(Causes(&cause).to_string());
            self.errors.push(match cause {
                KeyError::PasswordMissing { .. } => {
                    error.suggest(format!("add {} = \"file://PATH\"", files.password_place.field()))
                }
                _ => error,
            });
        };
        read.map_err(wrong).ok()
    }

    /// Makes a place for the OCSP answer about a certificate.
    fn staple(&mut self, file: &FileRef, config: Option<&config::Stapling>, chain: Option<&CertificateChain>) {
        if let Some(chain) = chain {
            self.errors.extend(self.status.add(file, config, chain));
        }
    }

    fn client_auth(&mut self, kind: ContextKind, config: &config::ClientAuth) -> Option<ClientAuth> {
        let Some(trust) = config.trust() else { return Some(ClientAuth::default()) };
        let file = &trust.cacertfile;
        let ca = match file.contents() {
            Contents::File => self.check(file, Certificate::anchors_from_file("", file.path()))?,
            Contents::Inline(text) => {
                self.check(file, Certificate::anchors_from_pem(&Source::new(""), text.expose().as_bytes()))?
            }
            Contents::Managed { data_dir, id, part } => {
                let text = self.managed(file, self.bundles(data_dir).part(id, *part))?;
                self.check(file, Certificate::anchors_from_pem(&Source::new(id.to_string()), &text))?
            }
        };
        self.read(kind, file, &ca);
        self.authorities(kind, file, &ca);
        let inspector = self.status.inspector(&trust.status, &ca).map_err(|found| self.errors.extend(found)).ok()?;
        Some(ClientAuth {
            verify: verify_mode(config),
            ca,
            depth: trust.depth,
            partial_chain: trust.partial_chain,
            purposes: trust.purposes.clone(),
            inspector,
        })
    }

    /// Takes note of when authorities expire: of those that do so first, as files may have any number.
    fn authorities(&mut self, kind: ContextKind, file: &FileRef, ca: &[Certificate]) {
        if ca.len() > MAX_AUTHORITIES {
            self.crowded.push(Crowded { kind, file: file.path().to_owned(), count: ca.len() });
        }
        let mut ca: Vec<&Certificate> = ca.iter().collect();
        ca.sort_by_key(|one| one.not_after());
        let first = ca.into_iter().take(MAX_AUTHORITIES).cloned();
        let (usage, file) = (Usage::Authority, file.path());
        self.in_use.extend(first.map(|certificate| InUse { kind, usage, file: file.to_owned(), certificate }));
    }

    fn ciphers(&mut self, kind: ContextKind, names: &Names, auth: &config::ClientAuth) -> Option<Vec<String>> {
        self.names(names, server::check_ciphers(kind, &names.names, verify_mode(auth)))
    }

    fn names(&mut self, names: &Names, wrong: Vec<ContextError>) -> Option<Vec<String>> {
        let good = wrong.is_empty();
        self.errors.extend(wrong.iter().map(|cause| names.place.error(Causes(cause).to_string())));
        good.then(|| names.names.clone())
    }

    /// Takes note of certificates that were read, and refuses those that the listener may not use.
    fn read<'a>(
        &mut self,
        kind: ContextKind,
        file: &FileRef,
        certificates: impl IntoIterator<Item = &'a Certificate> + Clone,
    ) {
        if self.gm_only {
            self.check(file, server::check_gm(kind, certificates.clone()));
        }
        self.material.extend(certificates.into_iter().map(|one| one.to_der().into()));
    }

    /// Takes note of an error in a file.
    fn check<T>(&mut self, file: &FileRef, result: Result<T, impl Error + 'static>) -> Option<T> {
        result.map_err(|cause| self.add(file, &cause)).ok()
    }

    /// As [`check`](Self::check), for a part of a bundle: one that is not there is a single mistake, whatever was to come of it. What is
    /// wrong with the key of the node is no fault of a bundle or of who refers to it.
    fn managed<T>(&mut self, file: &FileRef, result: Result<T, BundleError>) -> Option<T> {
        match &result {
            Err(BundleError::Missing(id)) => {
                if self.missing.contains(id) {
                    return None;
                }
                self.missing.push(id.clone());
            }
            Err(cause @ BundleError::NodeKey { path, .. }) => {
                let error = ConfigError::new(Origin::Default, "node.data_dir", cause.to_string());
                let error = ConfigError { path: Some(path.as_path().into()), ..error };
                if !self.errors.contains(&error) {
                    self.errors.push(error);
                }
                return None;
            }
            _ => {}
        }
        self.check(file, result)
    }

    fn add(&mut self, file: &FileRef, cause: &(dyn Error + 'static)) {
        self.errors.push(file.error(Causes(cause).to_string()));
    }
}

/// A file by the field that names it.
fn named(file: &FileRef) -> Source {
    Source::file(file.field(), file.path())
}

/// Which of the four files of a pair is wrong, or the first of those that do not belong together.
fn at_fault<'a>(config: &'a config::TlcpOptions, cause: &PairError) -> &'a FileRef {
    let files = [&config.sign.certfile, &config.sign.keyfile, &config.enc.certfile, &config.enc.keyfile];
    let wrong = cause.at_fault();
    files.into_iter().find(|file| wrong == Some(&named(file))).unwrap_or(&config.sign.certfile)
}

/// What could be read of a certificate and its key.
struct Half {
    chain: Option<CertificateChain>,
    key: Option<PrivateKey>,
}

/// A mistake that concerns a block as a whole, such as two certificates of one kind.
fn in_block(blocks: &[(ContextKind, &Place)], cause: &ContextError) -> ConfigError {
    let block = blocks.iter().find(|(kind, _)| cause.protocol() == Some(kind.name())).or(blocks.first());
    block.map_or_else(Place::default, |(_, place)| (*place).clone()).error(Causes(cause).to_string())
}

fn verify_mode(config: &config::ClientAuth) -> VerifyMode {
    match config {
        config::ClientAuth::None => VerifyMode::None,
        config::ClientAuth::Optional(_) => VerifyMode::Optional,
        config::ClientAuth::Required(_) => VerifyMode::Required,
    }
}

fn version(version: config::TlsVersion) -> TlsVersion {
    match version {
        config::TlsVersion::V1_2 => TlsVersion::Tls12,
        config::TlsVersion::V1_3 => TlsVersion::Tls13,
    }
}
