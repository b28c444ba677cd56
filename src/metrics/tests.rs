//! What the counters look like to a scraper.

use std::time::Duration;

use super::*;

fn lines(metrics: &Arc<Metrics>) -> Vec<String> {
    let gauges = Gauges { sessions: 3, subscriptions: 7, retained_messages: 2 };
    metrics.encode(gauges).lines().map(str::to_owned).collect()
}

#[test]
fn every_event_is_a_sample_of_its_listener() {
    let metrics = Arc::new(Metrics::new());
    let listener = metrics.listener("ssl:default");
    metrics.listener("tcp:default").accepted.fetch_add(5, Ordering::Relaxed);
    listener.accepted.fetch_add(2, Ordering::Relaxed);
    listener.connections.fetch_add(1, Ordering::Relaxed);
    let mut traffic = Traffic { bytes_received: 100, ..Traffic::default() };
    traffic.received(QoS::AtLeastOnce);
    traffic.sent(QoS::ExactlyOnce);
    listener.traffic(&mut traffic);
    listener.traffic(&mut traffic);
    listener.refused("plain_mqtt", "unknown");
    listener.refused("plain_mqtt", "unknown");
    listener.refused("no_certificate", "tlcp");
    listener.connect_result(ReasonCode::Success);
    listener.connect_result(ReasonCode::NotAuthorized);
    listener.handshake("tlcp", "ECC_SM4_GCM_SM3", false, Duration::from_millis(3));
    listener.handshake("tlcp", "ECC_SM4_GCM_SM3", true, Duration::from_millis(700));
    let failed = Failed { protocol: "tlcp", offered: "tlcp", reason: "expired" };
    listener.handshake_failed(failed, Duration::from_millis(2));
    metrics.session_ended(4);
    metrics.limit_hit("mqtt.max_sessions");
    metrics.limit_hit("subscriptions");
    metrics.route_cache(9, 1);

    let lines = lines(&metrics);
    let expected = [
        r#"shangmq_build_info{version="0.1.0"} 1"#,
        "shangmq_sessions 3",
        "shangmq_subscriptions 7",
        "shangmq_retained_messages 2",
        r#"shangmq_messages_dropped_total{reason="session_ended"} 4"#,
        r#"shangmq_messages_dropped_total{reason="queue_full"} 0"#,
        "shangmq_sessions_ended_total 1",
        "shangmq_route_cache_hits_total 9",
        r#"shangmq_limits_hit_total{limit="mqtt.max_sessions"} 1"#,
        r#"shangmq_limits_hit_total{limit="mqtt.max_packet_size"} 0"#,
        r#"shangmq_limits_hit_total{limit="subscriptions"} 1"#,
        r#"shangmq_connections_accepted_total{listener="ssl:default"} 2"#,
        r#"shangmq_connections_accepted_total{listener="tcp:default"} 5"#,
        r#"shangmq_connections{listener="ssl:default"} 1"#,
        r#"shangmq_received_bytes_total{listener="ssl:default"} 100"#,
        r#"shangmq_publishes_received_total{listener="ssl:default",qos="1"} 1"#,
        r#"shangmq_publishes_sent_total{listener="ssl:default",qos="2"} 1"#,
        r#"shangmq_publishes_sent_total{listener="ssl:default",qos="0"} 0"#,
        r#"shangmq_connections_refused_total{listener="ssl:default",reason="plain_mqtt",protocol="unknown"} 2"#,
        r#"shangmq_connections_refused_total{listener="ssl:default",reason="no_certificate",protocol="tlcp"} 1"#,
        r#"shangmq_connection_panics_total{listener="ssl:default"} 0"#,
        r#"shangmq_connects_total{listener="ssl:default",code="0x00",reason="Success"} 1"#,
        r#"shangmq_connects_total{listener="ssl:default",code="0x87",reason="NotAuthorized"} 1"#,
        r#"shangmq_handshakes_total{listener="ssl:default",protocol="tlcp",suite="ECC_SM4_GCM_SM3",resumed="true"} 1"#,
        r#"shangmq_handshake_duration_seconds_count{listener="ssl:default",protocol="tlcp",outcome="completed"} 2"#,
        r#"shangmq_handshake_duration_seconds_bucket{le="0.005",listener="ssl:default",protocol="tlcp",outcome="completed"} 1"#,
        r#"shangmq_handshakes_failed_total{listener="ssl:default",protocol="tlcp",offered="tlcp",reason="expired"} 1"#,
        r#"shangmq_handshake_duration_seconds_count{listener="ssl:default",protocol="tlcp",outcome="failed"} 1"#,
    ];
    for line in expected {
        assert!(lines.iter().any(|found| found == line), "no {line} in\n{}", lines.join("\n"));
    }
    assert_eq!(metrics.open_connections(), 1);
}

/// A scraper refuses the whole text if a family is described twice or its samples are not together.
#[test]
fn families_are_described_once_stand_together_and_are_those_of_the_page() {
    let metrics = Arc::new(Metrics::new());
    for id in ["tcp:a", "ssl:b", "wss:c"] {
        let listener = metrics.listener(id);
        listener.refused("closed", "unknown");
        listener.connect_result(ReasonCode::Success);
        let (protocol, usage, file, subject) = ("tls", "single", "a.crt".to_owned(), "CN=a".to_owned());
        metrics.alarms.raised("store");
        metrics.alarms.hold([("store", 1)].into_iter());
        listener.certificates.set(vec![Expiry { protocol, usage, file, subject, not_after: 0 }]);
        listener.handshake("tls1.3", "TLS_AES_128_GCM_SHA256", false, Duration::ZERO);
        listener.handshake_failed(Failed { protocol: "tls", offered: "tls1.2", reason: "closed" }, Duration::ZERO);
    }
    let revocation = RevocationCounters::default();
    revocation.checked("crl", "good");
    revocation.fetched("crl", "ok");
    revocation.stapled("sent");
    revocation.event("capacity");
    metrics.show_revocation(Arc::new(revocation));
    let lines = lines(&metrics);
    assert_eq!(lines.last().map(String::as_str), Some("# EOF"));
    let mut described = Vec::new();
    for line in &lines {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            let name = family.split(' ').next().unwrap().to_owned();
            assert!(!described.contains(&name), "{name} twice");
            described.push(name);
        } else if !line.starts_with('#') {
            let current = described.last().unwrap();
            assert!(line.starts_with(current.as_str()), "{line} stands in {current}");
        }
    }
    for page in [include_str!("../../docs/metrics.md"), include_str!("../../docs/metrics.zh-CN.md")] {
        let cells = page.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
        let mut named: Vec<&str> =
            cells.flat_map(|cell| cell.split('`').filter(|name| name.starts_with("shangmq_"))).collect();
        named.sort_unstable();
        let mut exposed: Vec<String> = lines.iter().filter_map(|line| exposed(line)).collect();
        exposed.sort_unstable();
        assert_eq!(named, exposed, "docs/metrics.md names other metrics than there are");
    }
}

/// The name of a family's samples, from the line that says its type.
fn exposed(line: &str) -> Option<String> {
    let (name, kind) = line.strip_prefix("# TYPE ")?.split_once(' ')?;
    Some(match kind {
        "counter" => format!("{name}_total"),
        "info" => format!("{name}_info"),
        _ => name.to_owned(),
    })
}

#[test]
fn a_listener_that_opens_again_goes_on_counting() {
    let metrics = Metrics::new();
    metrics.listener("tcp:a").accepted.fetch_add(1, Ordering::Relaxed);
    assert_eq!(metrics.listener("tcp:a").accepted.load(Ordering::Relaxed), 1);
    assert_eq!(metrics.listener("tcp:b").accepted.load(Ordering::Relaxed), 0);
}
