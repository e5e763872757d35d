//! What the guest finds on its root: this program, the binaries under test, programs of this machine with their
//! libraries, and the kernel's modules.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use squall_tests::netns::look;
use squall_tests::squall::binary;

use crate::guest::{BINARIES, WANTED};
use crate::initramfs::Initramfs;

/// Programs that the harness and the cases call. The kernel calls `modprobe` for what it needs, as on any host.
const PROGRAMS: [&str; 16] = [
    "bash", "cat", "chrt", "dmesg", "env", "ip", "modprobe", "nft", "nsenter", "setpriv", "sh", "sleep",
    "ss", "tc", "true", "unshare",
];

/// Folders of modules that are taken along, with whatever these need.
const MODULES: [&str; 11] = [
    "kernel/drivers/net/dummy",
    "kernel/drivers/net/ifb",
    "kernel/drivers/net/veth",
    "kernel/net/bridge/",
    "kernel/net/core/",
    "kernel/net/ipv4/",
    "kernel/net/ipv6/",
    "kernel/net/netfilter/",
    "kernel/net/sched/",
    "kernel/net/802/",
    "kernel/net/8021q/",
];

/// A kernel that a package was unpacked with.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Its version.
    pub version: String,
    /// Its image.
    pub image: PathBuf,
    /// The folder of its modules.
    modules: PathBuf,
    /// The folder of the package.
    root: PathBuf,
}

impl Kernel {
    /// The kernels that were unpacked below a folder, by version.
    pub fn below(folder: &Path) -> Vec<Kernel> {
        let packages = fs::read_dir(folder).into_iter().flatten().flatten();
        let mut found: Vec<Kernel> = packages.filter_map(|package| Kernel::of(&package.path())).collect();
        found.sort_by(|a, b| a.version.cmp(&b.version));
        found
    }

    fn of(root: &Path) -> Option<Kernel> {
        let modules = ["usr/lib/modules", "lib/modules"].map(|place| root.join(place));
        let modules = modules.into_iter().find(|place| place.is_dir())?;
        let version =
            fs::read_dir(&modules).ok()?.flatten().next()?.file_name().to_string_lossy().into_owned();
        let image = root.join(format!("boot/vmlinuz-{version}"));
        let modules = modules.join(&version);
        image.exists().then_some(Kernel { version, image, modules, root: root.to_owned() })
    }

    /// The version without what every kernel here has.
    pub fn short(&self) -> &str {
        self.version.trim_end_matches("-cloud-amd64")
    }

    /// The modules that are taken along, and the indexes that `modprobe` reads.
    fn add_modules(&self, to: &mut Initramfs) -> Result<()> {
        if !self.modules.join("modules.dep").exists() {
            // Debian does this when a kernel is installed, which this one is not.
            let root = match self.modules.starts_with(self.root.join("usr")) {
                true => self.root.join("usr"),
                false => self.root.clone(),
            };
            look(None, &["depmod", "-b", &root.display().to_string(), &self.version])?;
        }
        let needs = fs::read_to_string(self.modules.join("modules.dep")).context("no list of modules")?;
        let mut taken: BTreeSet<&str> = BTreeSet::new();
        for line in needs.lines() {
            let (module, needs) = line.split_once(':').unwrap_or((line, ""));
            if MODULES.iter().any(|folder| module.starts_with(folder)) {
                taken.insert(module);
                taken.extend(needs.split_whitespace());
            }
        }
        let place = format!("/usr/lib/modules/{}", self.version);
        for module in taken {
            to.copy(&format!("{place}/{module}"), &self.modules.join(module))?;
        }
        for index in fs::read_dir(&self.modules).context("no modules")?.flatten() {
            let name = index.file_name().to_string_lossy().into_owned();
            if name.starts_with("modules.") {
                to.copy(&format!("{place}/{name}"), &index.path())?;
            }
        }
        Ok(())
    }
}

/// Where a program stands on this machine.
pub fn program(name: &str) -> Option<PathBuf> {
    let places = ["/usr/bin", "/bin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/local/sbin"];
    places.iter().map(|place| Path::new(place).join(name)).find(|path| path.exists())
}

/// Programs that are missing on this machine.
pub fn missing() -> Vec<&'static str> {
    PROGRAMS.into_iter().chain(["depmod", "ldd"]).filter(|name| program(name).is_none()).collect()
}

/// Writes the root of a guest that is to run these cases.
pub fn write(path: &Path, kernel: &Kernel, wanted: &[&str]) -> Result<()> {
    let mut root = Initramfs::create(path)?;
    for place in [
        "/dev",
        "/proc",
        "/sys",
        "/tmp",
        "/run",
        "/etc",
        "/var/lib",
        "/root",
        "/usr/bin",
        "/usr/lib",
        "/usr/lib64",
    ] {
        root.directory(place)?;
    }
    for (link, to) in [
        ("/bin", "usr/bin"),
        ("/sbin", "usr/bin"),
        ("/usr/sbin", "bin"),
        ("/lib", "usr/lib"),
        ("/lib64", "usr/lib64"),
        ("/var/run", "/run"),
    ] {
        root.link(link, to)?;
    }
    root.file(
        "/etc/passwd",
        0o644,
        b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n",
    )?;
    root.file("/etc/group", 0o644, b"root:x:0:\nnogroup:x:65534:\n")?;
    root.file("/etc/hosts", 0o644, b"127.0.0.1 localhost\n::1 localhost\n")?;
    root.file(WANTED, 0o644, wanted.join("\n").as_bytes())?;
    let mut libraries = BTreeSet::new();
    let own = std::env::current_exe().context("a program knows itself")?;
    for (place, from) in [
        ("/init".to_owned(), own),
        (format!("{BINARIES}/squall"), binary("squall")),
        (format!("{BINARIES}/squall-agent"), binary("squall-agent")),
    ] {
        libraries.extend(needed(&from)?);
        root.file(&place, 0o755, &stripped(&from, path)?)?;
    }
    for name in PROGRAMS {
        let from = program(name).with_context(|| format!("`{name}` is not on this machine"))?;
        libraries.extend(needed(&from)?);
        // One program may have several names, and tell by its name what is wanted of it.
        root.copy(&format!("/usr/bin/{name}"), &from)?;
    }
    for library in libraries {
        let place = if library.starts_with("/usr/") { library.clone() } else { format!("/usr{library}") };
        root.copy(&place, Path::new(&library))?;
    }
    kernel.add_modules(&mut root)?;
    root.finish()
}

/// The libraries that a program is linked with; none for a static one.
fn needed(program: &Path) -> Result<Vec<String>> {
    let output = Command::new("ldd").arg(program).output().context("cannot run `ldd`")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let path = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(str::to_owned);
    if said.contains("not found") {
        bail!("`{}` lacks a library: {said}", program.display());
    }
    Ok(said.lines().filter_map(path).collect())
}

/// A program without what only a debugger reads, which is most of it.
fn stripped(program: &Path, beside: &Path) -> Result<Vec<u8>> {
    let small = beside.with_extension("stripped");
    let stripped = Command::new("strip")
        .arg("-o")
        .arg(&small)
        .arg(program)
        .status()
        .is_ok_and(|status| status.success());
    let content =
        fs::read(if stripped { &small } else { program }).with_context(|| program.display().to_string())?;
    if stripped {
        fs::remove_file(&small).with_context(|| small.display().to_string())?;
    }
    Ok(content)
}
