"""What tools that look for weaknesses, and know nothing of this broker, find on its secured ports: sslyze and curl. Both leave out TLCP and
RFC 8998, which they do not know; tests/it/posture.rs offers every suite there is in those too."""

import base64
import hashlib
import json
import re
import sys

from broker import BINARY, Ports
from process import Failure
from run import expect

CHECKS = """sslv2 sslv3 tlsv1 tlsv1_1 tlsv1_2 tlsv1_3 certinfo compression reneg resum heartbleed openssl_ccs robot fallback ems
elliptic_curves""".split()

STRONG = {
    "tls_1_2": {f"TLS_ECDHE_{key}_WITH_{cipher}" for key in ("ECDSA", "RSA")
                for cipher in ("AES_128_GCM_SHA256", "AES_256_GCM_SHA384", "CHACHA20_POLY1305_SHA256")},
    "tls_1_3": {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"},
}
CURVES = {"X25519", "secp256r1", "secp384r1"}

WEAK = """
[node]
data_dir = "data"
[auth]
allow_anonymous = true
no_match = "allow"
[listeners.ssl.default]
bind = "127.0.0.1:{port}"
[listeners.ssl.default.ssl_options]
certfile = "{certs}/server-rsa.crt"
keyfile = "{certs}/server-rsa.key"
ciphers = ["AES128-SHA", "TLS_AES_128_GCM_SHA256"]
session_tickets = "stateless"
"""


def tests(development, broker):
    return [
        ("sslyze finds nothing weak on the ssl port of a broker without a configuration", lambda context: strong(context, "ssl")),
        ("sslyze finds nothing weak on the wss port of a broker without a configuration, early data neither", lambda context: strong(context, "wss")),
        ("sslyze does find a suite without forward secrecy where one is configured", weak),
        ("curl upgrades to a WebSocket over TLS that it has verified, and is refused what is none", websocket),
    ]


def scan(context, port, ca, more=()):
    """What sslyze says of a port, or its failure to say anything."""
    out = context.work / f"sslyze-{port}.json"
    options = [f"--{check}" for check in CHECKS] + list(more)
    context.owner.run([sys.executable, "-W", "ignore", "-m", "sslyze", "--quiet", "--mozilla_config", "disable", "--certinfo_ca_file", ca,
                       "--json_out", out, *options, f"localhost:{port}"], timeout=60, cwd=context.work)
    [server] = json.loads(out.read_text())["server_scan_results"]
    expect((server["connectivity_status"], server["scan_status"]), ("COMPLETED", "COMPLETED"), "the scan")
    results = server["scan_result"]
    broken = {name: found["error_reason"] for name, found in results.items() if found["status"] not in ("COMPLETED", "NOT_SCHEDULED")}
    expect(broken, {}, "checks that did not come to an end")
    return {name: found["result"] for name, found in results.items() if found["status"] == "COMPLETED"}


def weaknesses(found, host, early_data):
    """Everything in a scan that is not as it should be, in words."""
    weak = []

    def check(good, words):
        if not good:
            weak.append(words)

    for version in ("ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1"):
        check(not found[f"{version}_cipher_suites"]["is_tls_version_supported"], f"{version} is served")
    for version, strong in STRONG.items():
        suites = found[f"{version}_cipher_suites"]
        check(len(suites["rejected_cipher_suites"]) >= 2, f"few suites of {version} were tried")
        served = {suite["cipher_suite"]["name"] for suite in suites["accepted_cipher_suites"]}
        check(served, f"{version} is not served")
        for name in sorted(served - strong):
            weak.append(f"{name} is served")
    curves = {curve["name"] for curve in found["elliptic_curves"]["supported_curves"]}
    check(curves and curves <= CURVES, f"groups {sorted(curves)}")
    check(not found["tls_compression"]["supports_compression"], "compression")
    check(not found["heartbleed"]["is_vulnerable_to_heartbleed"], "Heartbleed")
    check(not found["openssl_ccs_injection"]["is_vulnerable_to_ccs_injection"], "CCS injection")
    check(found["robot"]["robot_result"].startswith("NOT_VULNERABLE"), f"ROBOT: {found['robot']['robot_result']}")
    check(found["tls_fallback_scsv"]["supports_fallback_scsv"], "TLS_FALLBACK_SCSV is ignored")
    check(found["tls_extended_master_secret"]["supports_ems_extension"], "no extended master secret")
    renegotiation = found["session_renegotiation"]
    check(renegotiation["supports_secure_renegotiation"], "renegotiation is not marked as secure")
    check(renegotiation["client_renegotiations_success_count"] == 0, "clients can renegotiate")
    check(not renegotiation["is_vulnerable_to_client_renegotiation_dos"], "clients can renegotiate on and on")
    for kind in ("session_id", "tls_ticket"):
        check(found["session_resumption"][f"{kind}_resumption_result"] == "NOT_SUPPORTED", f"sessions are resumed by {kind}")
    if early_data:
        check(found["tls_1_3_early_data"]["supports_early_data"] is False, "early data")
    information = found["certificate_info"]
    expect(information["hostname_used_for_server_name_indication"], host, "the name that was asked for")
    for deployment in information["certificate_deployments"]:
        check(deployment["received_chain_has_valid_order"], "order of the chain")
        check(not deployment["received_chain_contains_anchor_certificate"], "the chain ends in its own anchor")
        check(deployment["verified_chain_has_sha1_signature"] is False, "no verified chain, or one with SHA-1")
        # Only the authority that was given knows this certificate; with it the name is checked too.
        trusted = [result for result in deployment["path_validation_results"] if result["was_validation_successful"]]
        check([result["trust_store"]["name"] for result in trusted] == ["Supplied CA file"], "the certificate is not trusted for this name")
        names = deployment["received_certificate_chain"][0]["subject_alternative_name"]["dns_names"]
        check(names == [host], f"names {names}")
    return weak


def strong(context, kind):
    certs = context.development.work / "gm-certs/dev"
    port = context.development.port(f"{kind}:default")
    # Clients are asked for certificates there; without one some checks would not run.
    identity = ["--cert", certs / "client-ecdsa.crt", "--key", certs / "client-ecdsa.key"]
    # An answer in HTTP is what sslyze waits for when it has tried early data.
    early_data = ["--early_data"] if kind == "wss" else []
    found = scan(context, port, certs / "ca.crt", identity + early_data)
    expect(weaknesses(found, "localhost", bool(early_data)), [], "weaknesses")
    served = {version: {suite["cipher_suite"]["name"] for suite in found[f"{version}_cipher_suites"]["accepted_cipher_suites"]} for version in STRONG}
    expect(served, STRONG, "the suites of the default configuration")


def weak(context):
    [port] = Ports(1).numbers
    config = context.work / "weak.toml"
    config.write_text(WEAK.format(port=port, certs=context.broker.certs))
    process = context.owner.start([BINARY, "start", "--config", config], cwd=context.work)
    process.wait_line(lambda line: re.search(r"\bready\b", line), timeout=60)
    found = scan(context, port, context.broker.certs / "ca.crt")
    expect(weaknesses(found, "localhost", False), ["TLS_RSA_WITH_AES_128_CBC_SHA is served", "sessions are resumed by tls_ticket"], "weaknesses")


def websocket(context):
    broker, certs = context.broker, context.broker.certs
    key = base64.b64encode(b"sixteen bytes...").decode()
    accept = base64.b64encode(hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()).decode()
    upgrade = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Protocol: mqtt"]

    def curl(*words, headers=upgrade, url=f"https://localhost:{broker.wss}/mqtt"):
        options = [option for header in headers for option in ("--header", header)]
        process = context.owner.start(["curl", "--silent", "--show-error", "--include", "--http1.1", "--no-buffer", "--max-time", "2", *options, *words, url], cwd=context.work)
        return process.wait_exit(20), "\n".join(process.output)

    ca = ["--cacert", certs / "ca.crt"]
    for version in ("1.2", "1.3"):
        code, said = curl(*ca, f"--tlsv{version}", "--tls-max", version)
        # 28: the WebSocket is open, and curl has nothing to say in it.
        expect(code, 28, f"curl over TLS {version}:\n{said}")
        lines = {line.strip().lower() for line in said.splitlines()}
        for wanted in ("http/1.1 101 switching protocols", f"sec-websocket-accept: {accept.lower()}", "sec-websocket-protocol: mqtt"):
            if wanted not in lines:
                raise Failure(f"'{wanted}' is missing in:\n{said}")
    code, said = curl("--cacert", certs / "sm2-ca.crt")
    expect(code, 60, f"a certificate of an authority that curl does not know: {said}")
    code, said = curl(*ca, headers=[])
    if not (code == 0 and re.match(r"HTTP/1\.1 4\d\d ", said)):
        raise Failure(f"a request that is no upgrade: {code} {said}")
    code, said = curl(*ca, url=f"https://localhost:{broker.wss}/else")
    if not (code == 0 and re.match(r"HTTP/1\.1 4\d\d ", said)):
        raise Failure(f"another path: {code} {said}")
    code, said = curl(url=f"http://localhost:{broker.wss}/mqtt")
    if code not in (52, 56) or "101" in said:
        raise Failure(f"without TLS: {code} {said}")
    code, said = curl(*ca, url=f"https://localhost:{broker.wss_mutual}/mqtt")
    if code not in (35, 56):
        raise Failure(f"without the certificate that is demanded: {code} {said}")
    code, said = curl(*ca, "--cert", certs / "client-ecdsa.crt", "--key", certs / "client-ecdsa.key", url=f"https://localhost:{broker.wss_mutual}/mqtt")
    expect((code, "101 Switching Protocols" in said), (28, True), f"with the certificate that is demanded: {said}")
