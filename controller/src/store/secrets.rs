//! The data directory's secrets: files that only their owner reads.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rand::Rng;

use super::StoreError;

/// The file with the key under which tokens are hashed.
const KEY: &str = "token-key";
/// Bytes of chance in a token: it cannot be guessed, so its hash needs no salt and no slowness.
const CHANCE: usize = 32;

/// What the data directory keeps secret. Cheap to clone; `Debug` shows the directory only.
#[derive(Clone)]
pub struct Secrets {
    directory: PathBuf,
    key: [u8; 32],
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secrets").field("directory", &self.directory).finish_non_exhaustive()
    }
}

/// A token as it is given out, once, and its hash, which is all that is kept.
pub struct Minted {
    /// What its owner shows. Never stored, never logged.
    pub token: String,
    /// [`Secrets::hash`] of it.
    pub hash: String,
}

impl Secrets {
    /// Opens a data directory's secrets, and makes the directory and its key when they are not there.
    ///
    /// Errors: a file that cannot be read or written, or that others may read.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        self::directory(directory)?;
        let mut secrets = Secrets { directory: directory.to_owned(), key: [0; 32] };
        let kept = match secrets.read(KEY)? {
            Some(kept) => kept,
            None => {
                let mut key = [0; 32];
                rand::rng().fill_bytes(&mut key);
                secrets.create(KEY, &key)?;
                // Of two who began at once, one was the first.
                secrets.read(KEY)?.unwrap_or_default()
            }
        };
        let broken = || StoreError::Strange(format!("`{}` does not hold a key", secrets.path(KEY).display()));
        secrets.key = kept.try_into().map_err(|_| broken())?;
        Ok(secrets)
    }

    /// Where a secret's file is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Reads a secret; `None` when there is no such file. One that its group or others may read is refused.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.path(name);
        let mode = match fs::metadata(&path) {
            Ok(metadata) => metadata.permissions().mode(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(StoreError::file(&path, cause)),
        };
        if mode & 0o077 != 0 {
            return Err(StoreError::Open { path });
        }
        fs::read(&path).map(Some).map_err(|cause| StoreError::file(&path, cause))
    }

    /// Writes a secret for its owner alone, whole or not at all, synced. One that is there stays, and that is no error:
    /// read it to see whose it is.
    pub fn create(&self, name: &str, secret: &[u8]) -> Result<(), StoreError> {
        let path = self.path(name);
        let draft = self.draft(name, secret)?;
        let linked = fs::hard_link(&draft, &path);
        fs::remove_file(&draft).map_err(|cause| StoreError::file(&draft, cause))?;
        match linked {
            Err(cause) if cause.kind() != io::ErrorKind::AlreadyExists => Err(StoreError::file(&path, cause)),
            _ => self.synced(),
        }
    }

    /// As [`Secrets::create`], in the place of one that is there.
    pub fn replace(&self, name: &str, secret: &[u8]) -> Result<(), StoreError> {
        let (path, draft) = (self.path(name), self.draft(name, secret)?);
        fs::rename(&draft, &path).map_err(|cause| StoreError::file(&path, cause))?;
        self.synced()
    }

    fn draft(&self, name: &str, secret: &[u8]) -> Result<PathBuf, StoreError> {
        let draft = self.path(&format!(".{name}.{}-{:08x}", std::process::id(), rand::rng().next_u32()));
        let write = || -> io::Result<()> {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
            file.write_all(secret)?;
            file.sync_all()
        };
        write().map_err(|cause| StoreError::file(&draft, cause))?;
        Ok(draft)
    }

    /// The new name survives a power loss only when its directory is on disk too.
    fn synced(&self) -> Result<(), StoreError> {
        let synced = File::open(&self.directory).and_then(|directory| directory.sync_all());
        synced.map_err(|cause| StoreError::file(&self.directory, cause))
    }

    /// A new token: `squall_KIND_` and 256 bits of chance.
    pub fn mint(&self, kind: &str) -> Minted {
        let mut chance = [0; CHANCE];
        rand::rng().fill_bytes(&mut chance);
        let digits: String = chance.iter().map(|byte| format!("{byte:02x}")).collect();
        let token = format!("squall_{kind}_{digits}");
        let hash = self.hash(&token);
        Minted { token, hash }
    }

    /// The hash under which a token is kept: BLAKE3, keyed, so that the database alone cannot even confirm a token.
    pub fn hash(&self, token: &str) -> String {
        blake3::keyed_hash(&self.key, token.as_bytes()).to_hex().to_string()
    }

    /// What tells this key from others without giving it away.
    pub(super) fn mark(&self) -> String {
        blake3::derive_key("squall 2026 mark of a token key", &self.key)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect()
    }
}

/// Makes a directory for its owner alone; one that is there stays as it is.
pub(super) fn directory(path: &Path) -> Result<(), StoreError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|cause| StoreError::file(path, cause))
}
