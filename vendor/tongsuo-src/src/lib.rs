//! Builds Tongsuo from the source that the published `tongsuo-src` crate carries, with our own switches.
//!
//! Only what `variant-ssl-sys` calls is exposed. The switches are in [`CONFIGURE`] and [`HARDENING`]; vendor/README.md says why each is there.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Switches of `./Configure` that hold for every target.
const CONFIGURE: &[&str] = &[
    "no-shared",
    "no-module",
    "no-dso",
    "no-engine",
    "no-tests",
    "no-apps",
    "no-legacy",
    "no-ssl3",
    "no-tls1",
    "no-tls1_1",
    "no-dtls",
    "no-comp",
    "no-zlib",
    "no-srp",
    "no-weak-ssl-ciphers",
    "no-uplink",
    "enable-ntls",
    "--libdir=lib",
];

/// Compiler flags of a hardened build.
const HARDENING: &[&str] = &["-O3", "-fPIC", "-fstack-protector-strong", "-fstack-clash-protection", "-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2"];

/// What [`Build::build`] leaves behind: headers and static libraries.
#[derive(Debug)]
pub struct Artifacts {
    include_dir: PathBuf,
    lib_dir: PathBuf,
}

impl Artifacts {
    pub fn include_dir(&self) -> &Path {
        &self.include_dir
    }

    pub fn lib_dir(&self) -> &Path {
        &self.lib_dir
    }
}

/// One build of Tongsuo below `OUT_DIR`.
#[derive(Debug)]
pub struct Build {
    openssl_dir: PathBuf,
}

impl Default for Build {
    fn default() -> Self {
        Self::new()
    }
}

impl Build {
    pub fn new() -> Build {
        Build { openssl_dir: PathBuf::from("/usr/local/ssl") }
    }

    /// Where the library looks for its configuration and its default CA store at run time.
    pub fn openssl_dir<P: AsRef<Path>>(&mut self, path: P) -> &mut Build {
        self.openssl_dir = path.as_ref().to_path_buf();
        self
    }

    /// Builds, or ends the build script with the reason.
    pub fn build(&mut self) -> Artifacts {
        match self.try_build() {
            Ok(artifacts) => artifacts,
            Err(reason) => {
                println!("cargo:warning=Tongsuo did not build: {reason}");
                eprintln!("\nTongsuo did not build: {reason}\n");
                std::process::exit(1);
            }
        }
    }

    fn try_build(&self) -> Result<Artifacts, String> {
        let target = variable("TARGET")?;
        let host = variable("HOST")?;
        let root = PathBuf::from(variable("OUT_DIR")?).join("tongsuo-build");
        let (source, install) = (root.join("src"), root.join("install"));
        if root.exists() {
            fs::remove_dir_all(&root).map_err(|e| format!("cannot empty {}: {e}", root.display()))?;
        }
        copy_tree(&source_dir()?, &source).map_err(|e| format!("cannot copy the source to {}: {e}", source.display()))?;
        narrow_record_layer(&source)?;

        let compiler = cc::Build::new().target(&target).host(&host).opt_level(2).warnings(false).get_compiler();
        let mut configure = Command::new(env::var_os("PERL").unwrap_or_else(|| "perl".into()));
        configure
            .arg("./Configure")
            .arg(format!("--prefix={}", install.display()))
            .arg(format!("--openssldir={}", self.openssl_dir.display()))
            .args(CONFIGURE)
            .args(target_switches(&target)?)
            .args(HARDENING)
            .env("CC", compiler.path())
            .env_remove("CROSS_COMPILE");
        run(configure, &source, "perl")?;

        // install_dev needs the libraries; one make at a time keeps the order under a parallel MAKEFLAGS.
        for goal in ["depend", "build_libs", "install_dev"] {
            let mut make = Command::new("make");
            make.arg(goal);
            if let Some(flags) = env::var_os("CARGO_MAKEFLAGS") {
                make.env("MAKEFLAGS", flags);
            }
            run(make, &source, "make")?;
        }
        fs::remove_dir_all(&source).map_err(|e| format!("cannot remove {}: {e}", source.display()))?;
        Ok(Artifacts { include_dir: install.join("include"), lib_dir: install.join("lib") })
    }
}

/// The platform's name in Tongsuo's Configure and the switches that only hold there.
fn target_switches(target: &str) -> Result<&'static [&'static str], String> {
    match target {
        // The 64-bit SM2 field arithmetic needs a compiler with 128-bit integers.
        "x86_64-unknown-linux-gnu" => Ok(&["linux-x86_64", "enable-ec_sm2p_64_gcc_128", "enable-ec_nistp_64_gcc_128", "-fcf-protection"]),
        "aarch64-unknown-linux-gnu" => Ok(&["linux-aarch64", "enable-ec_sm2p_64_gcc_128", "enable-ec_nistp_64_gcc_128", "-mbranch-protection=standard"]),
        other => Err(format!("no recipe for target {other}; set TONGSUO_NO_VENDOR=1 and OPENSSL_DIR to an installed Tongsuo (see vendor/README.md)")),
    }
}

/// Shrinks the arrays that each connection has for the records of a pipelined engine, of which there is none in this build: with
/// the 32 places of the source, two record layers take 9 of the 20 KiB of an idle connection.
fn narrow_record_layer(source: &Path) -> Result<(), String> {
    const BEFORE: &str = "define SSL_MAX_PIPELINES  32";
    const AFTER: &str = "define SSL_MAX_PIPELINES  1";
    let header = source.join("include/openssl/ssl.h.in");
    let text = fs::read_to_string(&header).map_err(|e| format!("cannot read {}: {e}", header.display()))?;
    if text.matches(BEFORE).count() != 1 {
        return Err(format!("{} does not define SSL_MAX_PIPELINES as expected", header.display()));
    }
    fs::write(&header, text.replace(BEFORE, AFTER)).map_err(|e| format!("cannot write {}: {e}", header.display()))
}

/// Where Cargo unpacked the sources that `source/Cargo.lock` pins, fetched first if they are not there yet.
fn source_dir() -> Result<PathBuf, String> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("source/Cargo.toml");
    let output = Command::new(variable("CARGO")?)
        .args(["metadata", "--format-version", "1", "--locked", "--manifest-path"])
        .arg(&manifest)
        .output()
        .map_err(|e| format!("cannot run cargo metadata: {e}"))?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr);
        return Err(format!("cannot fetch the sources that {} names: {}", manifest.display(), reason.trim()));
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).map_err(|e| format!("cargo metadata printed no JSON: {e}"))?;
    let packages = metadata["packages"].as_array().ok_or("cargo metadata named no packages")?;
    let package = packages.iter().find(|p| p["name"] == "tongsuo-src").ok_or("cargo metadata did not name tongsuo-src")?;
    let crate_manifest = package["manifest_path"].as_str().ok_or("cargo metadata gave tongsuo-src no manifest")?;
    Ok(Path::new(crate_manifest).with_file_name("tongsuo"))
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|_| format!("{name} is not set; this runs from a build script only"))
}

fn run(mut command: Command, dir: &Path, needs: &str) -> Result<(), String> {
    println!("running {command:?}");
    match command.current_dir(dir).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{command:?} ended with {status}")),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(format!("{needs} is not installed (Debian: apt-get install {needs})")),
        Err(e) => Err(format!("cannot run {needs}: {e}")),
    }
}

fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
