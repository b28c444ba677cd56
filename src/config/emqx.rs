//! Keys of EMQX that have no counterpart here, so that somebody who brings a configuration along is told why.

/// Why a key is refused that EMQX would take.
pub(super) fn without_counterpart(key: &str) -> Option<&'static str> {
    Some(match key {
        "dhfile" => {
            "keys are exchanged over elliptic curves alone, never over finite fields (DHE), so that there are no parameters to choose"
        }
        "log_level" => "connections write to the log of the broker, whose level is log.level",
        "hibernate_after" | "gc_after_handshake" => {
            "it saves memory in EMQX's runtime; here an idle connection holds no buffers"
        }
        "acceptors" => "one task accepts, and every connection has a task of its own from then on",
        "active_n" | "parse_unit" | "tcp_backend" => "it tunes EMQX's runtime, which is not this broker's",
        _ => return None,
    })
}
