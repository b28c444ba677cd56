//! What a listener asks about the certificates of its clients. Inside the handshake only what is at hand is looked at, so that a client
//! that is known to be revoked gets its alert; what has to be fetched is waited for after the handshake and before CONNECT is read, by
//! that client alone.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use gm_tls::PeerIdentity;
use gm_tls::cert::Certificate;
use gm_tls::revocation::{Admission, Facts, Inspector, NotAdmitted, OcspState, PeerChains, Reason, is_issued_by};
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::Revocation;
use super::answers::{Asked, Entry};
use super::files::File;
use super::held::{Held, Issuer, Subject};
use super::points::not_current;
use super::watches::Watched;
use crate::config::{CheckDepth, ClientStatus, CrlCheck, FailMode, OcspCheck};

/// The longest chain that is put together of issuers that are known.
const MAX_CHAIN: usize = 32;
/// Addresses of one certificate that are tried.
const MAX_URLS: usize = 4;

/// The checks of one protocol of a listener.
#[derive(Debug)]
pub struct Policy {
    service: Arc<Revocation>,
    crl: Option<(CrlCheck, Vec<Arc<File>>)>,
    ocsp: Option<OcspCheck>,
    anchors: Vec<Arc<Issuer>>,
}

/// An authority whose clients are refused, since there is no revocation list of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LackingList {
    pub issuer: String,
    files: Vec<PathBuf>,
}

impl fmt::Display for LackingList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files: Vec<String> = self.files.iter().map(|file| file.display().to_string()).collect();
        let files = if files.is_empty() { "none".to_owned() } else { files.join(", ") };
        write!(
            f,
            "cacertfile has \"{}\", and neither crl.files ({files}) nor `shangmq ctl crl add` brought a list of it, while \
             distribution_points is false; bring one, or if its clients come from an authority below it, add that authority to cacertfile",
            self.issuer
        )
    }
}

/// What one source says of a certificate.
#[derive(Debug)]
enum Verdict {
    Good,
    Revoked(Reason),
    /// Why nothing could be learned.
    Unknown(String),
}

/// A certificate of a client and the one above it.
struct Link<'a> {
    certificate: &'a Certificate,
    issuer: Arc<Issuer>,
    facts: Facts,
}

impl Link<'_> {
    fn subject(&self) -> Subject {
        Subject {
            issuer: self.issuer.fingerprint,
            serial: self.facts.serial.clone(),
            is_authority: self.facts.is_authority,
            points: self.facts.points.clone(),
        }
    }

    /// What is asked, and whom: the responder that the operator names, or else those that the certificate does, one after the other.
    fn asked<'a>(&'a self, check: &'a OcspCheck) -> impl Iterator<Item = Asked<'a>> {
        let named = check.responder_url.as_slice();
        let responders = if named.is_empty() { self.facts.ocsp_urls.as_slice() } else { named };
        responders.iter().take(MAX_URLS).map(|responder| Asked {
            certificate: self.certificate,
            serial: &self.facts.serial,
            issuer: &self.issuer,
            responder,
        })
    }
}

impl Policy {
    pub(super) fn new(
        service: &Arc<Revocation>,
        status: &ClientStatus,
        files: Vec<Arc<File>>,
        anchors: &[Certificate],
    ) -> Policy {
        Policy {
            service: Arc::clone(service),
            crl: status.crl.clone().map(|crl| (crl, files)),
            ocsp: status.ocsp.clone(),
            anchors: anchors.iter().map(|anchor| Arc::new(Issuer::new(anchor))).collect(),
        }
    }

    /// The trust anchors whose clients are refused for want of a list: hard-fail is asked for, nothing may be fetched, and nobody brought
    /// a list of theirs or, where the certificates of clients alone are checked, of an authority below them that is known.
    pub fn lacking(&self) -> Vec<LackingList> {
        let hard = |check: &CrlCheck| check.mode == FailMode::Hard && !check.distribution_points;
        let Some((check, _)) = self.crl.as_ref().filter(|(check, _)| hard(check)) else { return Vec::new() };
        let is_listed = |issuer: &Arc<Issuer>| self.brought(issuer).iter().any(|held| held.verify(issuer).is_ok());
        // Others are certificates of clients that are trusted by themselves.
        let issues = |anchor: &Certificate| {
            anchor.is_self_issued() || Facts::of_der(&anchor.to_der()).is_ok_and(|facts| facts.is_authority)
        };
        let without = self.anchors.iter().filter(|anchor| !is_listed(anchor)).map(|anchor| &anchor.certificate);
        let mut lacking: Vec<&Certificate> = without.filter(|anchor| issues(anchor)).collect();
        if check.depth == CheckDepth::Leaf && !lacking.is_empty() {
            let remembered = self.service.issuers.all();
            for below in self.anchors.iter().chain(&remembered).filter(|issuer| is_listed(issuer)) {
                let chain = self.rebuild(below.certificate.clone());
                lacking.retain(|anchor| !chain.contains(anchor));
            }
        }
        lacking
            .into_iter()
            .map(|anchor| LackingList {
                issuer: anchor.subject(),
                files: check.files.iter().map(|file| file.path().to_owned()).collect(),
            })
            .collect()
    }

    fn issuer(&self, certificate: &Certificate) -> Arc<Issuer> {
        let known = self.anchors.iter().find(|anchor| anchor.certificate == *certificate);
        known.map_or_else(|| self.service.issuers.remember(certificate), Arc::clone)
    }

    /// How many certificates of a chain are asked about.
    fn checked(depth: CheckDepth, length: usize) -> usize {
        let below_anchor = length.saturating_sub(1);
        match depth {
            CheckDepth::Leaf => below_anchor.min(1),
            CheckDepth::Chain => below_anchor,
        }
    }

    fn links<'a>(&self, chain: &'a [Certificate]) -> Result<Vec<Link<'a>>, NotAdmitted> {
        let deepest = [self.crl.as_ref().map(|(crl, _)| crl.depth), self.ocsp.as_ref().map(|ocsp| ocsp.depth)];
        let count = deepest.into_iter().flatten().map(|depth| Policy::checked(depth, chain.len())).max().unwrap_or(0);
        let pairs = chain.iter().zip(chain.iter().skip(1)).take(count);
        pairs
            .map(|(certificate, issuer)| {
                let facts = Facts::of_der(&certificate.to_der()).map_err(|cause| NotAdmitted {
                    label: "bad_certificate",
                    detail: format!("\"{}\": {cause}", certificate.subject()),
                })?;
                Ok(Link { certificate, issuer: self.issuer(issuer), facts })
            })
            .collect()
    }

    /// Lists that the operator brought, of authorities of the issuer's name.
    fn brought(&self, issuer: &Issuer) -> Vec<Arc<Held>> {
        let files = self.crl.iter().flat_map(|(_, files)| files).flat_map(|file| file.lists());
        let uploads = self.service.files.uploads();
        files.chain(uploads.values().flatten().cloned()).filter(|held| held.is_named_after(issuer)).collect()
    }

    /// What is known of a certificate without asking anybody.
    fn at_hand(&self, link: &Link<'_>) -> Option<Reason> {
        let points = link.facts.crl_urls.iter().take(MAX_URLS);
        let points = points.filter_map(|url| self.service.points.at_hand(url, &link.issuer.fingerprint));
        let lists = self.crl.iter().flat_map(|_| self.brought(&link.issuer).into_iter().chain(points.clone()));
        let subject = link.subject();
        let revoked = lists.filter(|held| held.verify(&link.issuer).is_ok()).find_map(|held| held.revokes(&subject));
        revoked.or_else(|| {
            let mut asked = link.asked(self.ocsp.as_ref()?);
            asked.find_map(|one| self.service.answers.at_hand(&one.issuer.fingerprint, one.serial, one.responder))
        })
    }

    async fn by_lists(&self, check: &CrlCheck, link: &Link<'_>, deadline: Instant) -> Verdict {
        let facts = &link.facts;
        let mut current = false;
        let mut why = None;
        for held in self.brought(&link.issuer) {
            match held.verify(&link.issuer) {
                Err(cause) => why = Some(format!("a list from a file was refused: {cause}")),
                Ok(()) if !held.crl.covers(facts.is_authority, &facts.points) => {}
                Ok(()) => match held.crl.revoked(&facts.serial) {
                    Some(reason) => return Verdict::Revoked(reason),
                    None if held.crl.is_current(crate::dev_certs::now()) => current = true,
                    None => why = Some(not_current(&held.crl)),
                },
            }
        }
        // Also one that is stale: what was revoked stays so.
        if let Some(reason) = self.at_hand(link) {
            return Verdict::Revoked(reason);
        }
        if current {
            return Verdict::Good;
        }
        if !check.distribution_points || facts.crl_urls.is_empty() {
            let missing = match check.distribution_points {
                true => "no file has a list of its issuer, and it names no distribution point by http or https",
                false => "no file has a list of its issuer, and distribution_points is false",
            };
            return Verdict::Unknown(why.unwrap_or_else(|| missing.to_owned()));
        }
        for url in facts.crl_urls.iter().take(MAX_URLS) {
            match timeout_at(deadline, self.service.points.list(url, &link.issuer)).await {
                Ok(Ok(held)) if held.crl.covers(facts.is_authority, &facts.points) => {
                    return held.crl.revoked(&facts.serial).map_or(Verdict::Good, Verdict::Revoked);
                }
                Ok(Ok(_)) => why = Some(format!("{url}: the list is about other certificates")),
                Ok(Err(cause)) => why = Some(format!("{url}: {cause}")),
                Err(_) => why = Some(format!("{url}: not fetched in time for this handshake")),
            }
        }
        Verdict::Unknown(why.unwrap_or_default())
    }

    /// What the first responder says that knows something, and that responder's number.
    async fn by_ocsp(&self, check: &OcspCheck, link: &Link<'_>, deadline: Instant) -> (Verdict, usize) {
        let mut why = "it names no OCSP responder, and none is configured".to_owned();
        let mut left = u32::try_from(link.asked(check).count()).unwrap_or(u32::MAX);
        for (number, asked) in link.asked(check).enumerate() {
            // Each has its share of the time, so that one that is silent leaves some for the next.
            let now = Instant::now();
            let until = now + deadline.saturating_duration_since(now) / left.max(1);
            left = left.saturating_sub(1);
            let responder = asked.responder;
            why = match timeout_at(until, self.service.answers.state(asked)).await {
                Ok(Ok(OcspState::Good)) => return (Verdict::Good, number),
                Ok(Ok(OcspState::Revoked(reason))) => return (Verdict::Revoked(reason), number),
                Ok(Ok(OcspState::Unknown)) => format!("{responder}: the responder does not know it"),
                Ok(Err(cause)) => format!("{responder}: {cause}"),
                // What was revoked stays so while its responder is silent, as when it refuses to answer.
                Err(_) => match self.service.answers.was_revoked(asked) {
                    Some(reason) => return (Verdict::Revoked(reason), number),
                    None => format!("{responder}: no answer in time for this handshake"),
                },
            };
        }
        if check.mode == FailMode::Hard {
            link.asked(check).for_each(|asked| self.service.answers.note_refused(asked));
        }
        (Verdict::Unknown(why), 0)
    }

    /// What follows from a verdict.
    fn conclude(
        &self,
        source: &'static str,
        mode: FailMode,
        verdict: Verdict,
        certificate: &Certificate,
    ) -> Result<(), NotAdmitted> {
        let counters = &self.service.counters;
        let subject = || certificate.subject();
        match verdict {
            Verdict::Good => counters.checked(source, "good"),
            Verdict::Revoked(reason) => {
                counters.checked(source, "revoked");
                let detail = format!("\"{}\" is revoked ({reason}), says {source}", subject());
                return Err(NotAdmitted { label: "revoked", detail });
            }
            Verdict::Unknown(why) if mode == FailMode::Hard => {
                counters.checked(source, "unknown");
                let detail = format!("whether \"{}\" is revoked cannot be learned by {source}: {why}", subject());
                return Err(NotAdmitted { label: "revocation_unknown", detail });
            }
            Verdict::Unknown(why) => {
                counters.checked(source, "unknown_accepted");
                debug!(subject = subject(), source, why, "let in by soft-fail");
            }
        }
        Ok(())
    }

    /// The answers, besides those of the first responders, that let the client in and are to be watched.
    async fn judge(
        &self,
        chain: &[Certificate],
        links: &[Link<'_>],
        deadline: Instant,
    ) -> Result<Vec<Arc<Entry>>, NotAdmitted> {
        let (crl, ocsp) = (self.crl.as_ref().map(|(check, _)| check), self.ocsp.as_ref());
        let mut further = Vec::new();
        if let [alone] = chain {
            let why = "its issuer is not known here; have the authorities above it in cacertfile";
            let verdict = || Verdict::Unknown(why.to_owned());
            crl.map_or(Ok(()), |check| self.conclude("crl", check.mode, verdict(), alone))?;
            ocsp.map_or(Ok(()), |check| self.conclude("ocsp", check.mode, verdict(), alone))?;
        }
        for (at, link) in links.iter().enumerate() {
            if let Some(check) = crl.filter(|check| at < Policy::checked(check.depth, chain.len())) {
                let verdict = self.by_lists(check, link, deadline).await;
                self.conclude("crl", check.mode, verdict, link.certificate)?;
            }
            if let Some(check) = ocsp.filter(|check| at < Policy::checked(check.depth, chain.len())) {
                let (verdict, number) = self.by_ocsp(check, link, deadline).await;
                self.conclude("ocsp", check.mode, verdict, link.certificate)?;
                let asked = link.asked(check).nth(number).filter(|_| check.close_revoked && number > 0);
                further.extend(asked.and_then(|asked| self.service.answers.entry(asked).ok()));
            }
        }
        Ok(further)
    }

    /// What is watched of a chain while its client is connected.
    fn watched(&self, chain: &[Certificate], links: &[Link<'_>]) -> Vec<Watched> {
        let crl = self.crl.as_ref().map(|(check, _)| check).filter(|check| check.close_revoked);
        let ocsp = self.ocsp.as_ref().filter(|check| check.close_revoked);
        let mut watched = Vec::new();
        for (at, link) in links.iter().enumerate() {
            if crl.is_some_and(|check| at < Policy::checked(check.depth, chain.len())) {
                watched.push(Watched::Lists(link.subject(), Arc::clone(&link.issuer)));
            }
            let check = ocsp.filter(|check| at < Policy::checked(check.depth, chain.len()));
            // Without a place for its answer the client is not let in, or is by soft-fail, and counted.
            let entry = check.and_then(|check| self.service.answers.entry(link.asked(check).next()?).ok());
            watched.extend(entry.map(Watched::Answer));
        }
        watched
    }

    /// Who issued a certificate, of the trust anchors and those that clients have shown.
    fn issuer_of<'a>(&'a self, certificate: &Certificate, remembered: &'a [Arc<Issuer>]) -> Option<&'a Arc<Issuer>> {
        self.anchors.iter().chain(remembered).find(|issuer| is_issued_by(certificate, &issuer.certificate))
    }

    /// The chain of a certificate that came without one, by the issuers that are known: that of a resumed session, or one that is itself
    /// a trust anchor. It is the certificate alone where its issuer is not known.
    fn rebuild(&self, leaf: Certificate) -> Vec<Certificate> {
        let remembered = self.service.issuers.all();
        let mut chain = vec![leaf];
        while let Some(last) = chain.last() {
            // The root needs no issuer.
            if (last.is_self_issued() && chain.len() > 1) || chain.len() >= MAX_CHAIN {
                break;
            }
            match self.issuer_of(last, &remembered) {
                Some(issuer) => chain.push(issuer.certificate.clone()),
                None => break,
            }
        }
        chain
    }

    async fn admit_peer(
        &self,
        peer: &PeerIdentity,
        chains: PeerChains,
        wait: Duration,
    ) -> Result<Admission, NotAdmitted> {
        let deadline = Instant::now() + wait;
        let mut chains = chains.0;
        if chains.is_empty() {
            for kept in [&peer.encryption, &peer.signing].into_iter().flatten() {
                let leaf = kept
                    .decode()
                    .map_err(|cause| NotAdmitted { label: "bad_certificate", detail: cause.to_string() })?;
                chains.push(vec![leaf]);
            }
        }
        let chains: Vec<Vec<Certificate>> = chains
            .into_iter()
            .map(|chain| match <[Certificate; 1]>::try_from(chain) {
                Ok([alone]) => self.rebuild(alone),
                Err(chain) => chain,
            })
            .collect();
        let mut links = Vec::with_capacity(chains.len());
        for chain in &chains {
            links.push(self.links(chain)?);
        }
        // Before anything is asked, so that nothing that comes meanwhile is missed.
        let watched = || -> Vec<Watched> {
            chains.iter().zip(&links).flat_map(|(chain, links)| self.watched(chain, links)).collect()
        };
        let watch = |watched: Vec<Watched>| (!watched.is_empty()).then(|| self.service.watches.add(watched));
        let mut revoked = watch(watched());
        let mut further = Vec::new();
        for (chain, links) in chains.iter().zip(&links) {
            further.extend(self.judge(chain, links, deadline).await?);
        }
        if !further.is_empty() {
            let mut all = watched();
            all.extend(further.iter().map(|entry| Watched::Answer(Arc::clone(entry))));
            let before = std::mem::replace(&mut revoked, watch(all));
            // What came until now was told to the first watch, or nobody.
            let told = before.and_then(|mut before| before.try_recv().ok());
            if let Some(reason) = told.or_else(|| further.iter().find_map(|entry| entry.revoked())) {
                let detail = format!("a certificate of the client was just revoked ({reason})");
                return Err(NotAdmitted { label: "revoked", detail });
            }
        }
        Ok(Admission { revoked })
    }
}

impl Inspector for Policy {
    fn revoked(&self, chain: &[Certificate]) -> Option<(usize, Reason)> {
        // What cannot be read is refused after the handshake, with its reason.
        let links = self.links(chain).ok()?;
        links.iter().enumerate().find_map(|(depth, link)| {
            let reason = self.at_hand(link)?;
            self.service.counters.checked("at_hand", "revoked");
            Some((depth, reason))
        })
    }

    fn knows_issuer(&self, certificate: &Certificate) -> bool {
        self.issuer_of(certificate, &self.service.issuers.all()).is_some()
    }

    fn admit(
        self: Arc<Self>,
        peer: Arc<PeerIdentity>,
        chains: PeerChains,
        wait: Duration,
    ) -> Pin<Box<dyn Future<Output = Result<Admission, NotAdmitted>> + Send>> {
        Box::pin(async move { self.admit_peer(&peer, chains, wait).await })
    }
}
