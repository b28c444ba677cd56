"""Revocation and stapling against OpenSSL: its authority, its responder and its client, none of which knows anything of this broker."""

import re

from broker import BINARY, Ports
from process import Failure

CA = """
[ca]
default_ca = authority
[authority]
database = index.txt
serial = serial
crlnumber = crlnumber
new_certs_dir = .
certificate = ca.pem
private_key = ca.key
default_md = sha256
default_days = 30
default_crl_days = 30
policy = anything
x509_extensions = leaf
[anything]
commonName = supplied
[leaf]
basicConstraints = CA:FALSE
subjectAltName = DNS:localhost
authorityInfoAccess = OCSP;URI:http://127.0.0.1:{responder}
{more}
"""

CONFIG = """
[node]
data_dir = "data"
[auth]
allow_anonymous = true
no_match = "allow"
[revocation]
allowed_hosts = ["127.0.0.1"]
[listeners.ssl.default]
bind = "127.0.0.1:{port}"
[listeners.ssl.default.ssl_options]
certfile = "server-chain.pem"
keyfile = "server.key"
{lines}
"""


def tests(development, broker):
    found = []
    for version in ("tls1_2", "tls1_3"):
        found.append((f"openssl s_client -status sees a good answer of openssl ocsp over {version}",
                      lambda context, version=version: stapling(context, version)))
    found.append(("a must-staple certificate is served while its responder answers", must_staple))
    found.append(("a client that openssl ca revoked is refused with an alert", client_lists))
    found.append(("a client that openssl ocsp calls revoked is refused with an alert", client_answers))
    return found


def stapled(line):
    return "OCSP answer to staple is here" in line


class Authority:
    """An authority by `openssl ca` in the directory of a test."""

    def __init__(self, context, more=""):
        self.context, (self.responder, self.port) = context, Ports(2).numbers
        context.work.joinpath("ca.cnf").write_text(CA.format(responder=self.responder, more=more))
        context.work.joinpath("index.txt").write_text("")
        context.work.joinpath("serial").write_text("1000\n")
        context.work.joinpath("crlnumber").write_text("01\n")
        self.run("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -subj /CN=Authority -days 30")

    def run(self, words):
        return self.context.owner.run(["openssl", *words.split()], cwd=self.context.work)

    def issue(self, name):
        self.run(f"req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key -out {name}.csr -subj /CN={name}")
        self.run(f"ca -batch -config ca.cnf -notext -in {name}.csr -out {name}.pem")
        work = self.context.work
        (work / f"{name}-chain.pem").write_text((work / f"{name}.pem").read_text() + (work / "ca.pem").read_text())

    def broker(self, lines, *said):
        """A broker that is ready, and has said this."""
        (self.context.work / "shangmq.toml").write_text(CONFIG.format(port=self.port, lines=lines))
        (self.context.work / "server.key").chmod(0o600)
        process = self.context.owner.start([BINARY, "start", "--config", "shangmq.toml"], cwd=self.context.work)
        process.wait_lines(lambda line: re.search(r"\bready\b", line), *said, timeout=60)
        return process

    def answer(self):
        words = f"ocsp -index index.txt -port {self.responder} -rsigner ca.pem -rkey ca.key -CA ca.pem -ndays 1 -text"
        process = self.context.owner.start(["openssl", *words.split()], cwd=self.context.work)
        process.wait_line(lambda line: "waiting for OCSP" in line or "ACCEPT" in line, timeout=15)
        return process

    def connect(self, words):
        """What s_client says until the connection ends, which a line of text makes it do."""
        command = f"(printf x; sleep 1) | openssl s_client -connect localhost:{self.port} -CAfile ca.pem -verify_return_error {words}"
        process = self.context.owner.start(["bash", "-c", command], cwd=self.context.work)
        process.wait_exit(20)
        return "\n".join(process.output)


def stapling(context, version):
    authority = Authority(context)
    authority.issue("server")
    authority.answer()
    authority.broker("ocsp = { enable_ocsp_stapling = true }", stapled)
    said = authority.connect(f"-status -{version}")
    for words in ("OCSP Response Status: successful", "Cert Status: good", "Verify return code: 0"):
        if words not in said:
            raise Failure(f"'{words}' is missing in:\n{said}")
    # Without being asked nothing is said.
    if "OCSP Response Status" in authority.connect(f"-{version}"):
        raise Failure("stapled without being asked")


def must_staple(context):
    authority = Authority(context, "tlsfeature = status_request")
    authority.issue("server")
    def missing(line):
        return "no OCSP answer for a must-staple certificate" in line

    broker = authority.broker("ocsp = { enable_ocsp_stapling = true }", missing)
    said = authority.connect("-status")
    if "Cert Status" in said or "Verify return code: 0" in said and "New, TLS" in said:
        raise Failure(f"served without an answer:\n{said}")
    authority.answer()
    broker.wait_lines(stapled, timeout=30)
    said = authority.connect("-status")
    if "Cert Status: good" not in said:
        raise Failure(f"no answer:\n{said}")


def client_lists(context):
    authority = Authority(context)
    for name in ("server", "good", "bad"):
        authority.issue(name)
    authority.run("ca -config ca.cnf -revoke bad.pem -crl_reason keyCompromise")
    authority.run("ca -config ca.cnf -gencrl -out ca.crl")
    authority.broker('verify = "verify_peer"\nfail_if_no_peer_cert = true\ncacertfile = "ca.pem"\n'
                     'crl = { files = ["ca.crl"], distribution_points = false }')
    for name, version, refused in (("good", "tls1_2", False), ("bad", "tls1_2", True), ("bad", "tls1_3", True), ("good", "tls1_3", False)):
        said = authority.connect(f"-{version} -cert {name}.pem -key {name}.key")
        if ("certificate revoked" in said) != refused:
            raise Failure(f"{name} over {version}:\n{said}")


def client_answers(context):
    authority = Authority(context)
    for name in ("server", "good", "bad"):
        authority.issue(name)
    authority.run("ca -config ca.cnf -revoke bad.pem -crl_reason keyCompromise")
    authority.answer()
    broker = authority.broker('verify = "verify_peer"\nfail_if_no_peer_cert = true\ncacertfile = "ca.pem"\nocsp_check = {}')
    # The first time the responder is asked behind the handshake; from then on its answer is at hand.
    authority.connect("-tls1_3 -cert bad.pem -key bad.key")
    broker.wait_line(lambda line: "revoked (keyCompromise)" in line, timeout=20)
    for name, version, refused in (("good", "tls1_2", False), ("bad", "tls1_2", True), ("bad", "tls1_3", True), ("good", "tls1_3", False)):
        said = authority.connect(f"-{version} -cert {name}.pem -key {name}.key")
        if ("certificate revoked" in said) != refused:
            raise Failure(f"{name} over {version}:\n{said}")
