//! What this process shares of a PKCS#11 module: that it is loaded, initialised, and asked for.
//!
//! A module has one state a process, whoever uses it: `C_Initialize` comes once, and `C_Finalize` ends
//! the sessions of everybody. So there is one [`Module`] a file here, and keys hold a [`Lease`] of it.
//! It is finalised with its last lease, and initialised anew ([`Lease::revive`]) only for a token that
//! is gone, while no other token of it is in use: p11-kit's client never reconnects otherwise. It is
//! never finalised when somebody outside of this file initialised it, and never unloaded.
//!
//! Every call into the module is made under [`Lease::enter`], so that none is under way when it is
//! finalised. A call that hangs is not waited for: what needs the module alone gives up soon.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fs, io};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use tracing::debug;
use zeroize::Zeroizing;

use super::error::{CallError, TokenError};
use super::gate::{Gate, Pass};
use crate::clock::Stopwatch;

/// A module is not initialised anew more often than this.
const BETWEEN_REVIVALS: Duration = Duration::from_millis(250);

/// How long calls are waited for that should be short, before a module is finalised.
const PATIENCE: Duration = Duration::from_millis(500);

/// How long [`finish`] waits.
const FAREWELL: Duration = Duration::from_secs(1);

/// p11-kit's client sends all calls through one socket, to a server that answers one after the other. When
/// the server dies, of several threads in calls all but one wait for ever (seen with 0.24.1). So
/// its calls are made one after the other here, which costs nothing.
const ONE_AFTER_THE_OTHER: &str = "p11-kit-client";

/// Every module this process has loaded, by file.
static MODULES: Mutex<BTreeMap<PathBuf, Arc<Module>>> = Mutex::new(BTreeMap::new());

/// Whether a module was initialised already when it was loaded: by somebody else, or by us under
/// another name. Then nothing is finalised any more, as it could be theirs.
static SHARED: AtomicBool = AtomicBool::new(false);

/// One loaded module.
#[derive(Debug)]
struct Module {
    file: PathBuf,
    pkcs11: Pkcs11,
    /// Entered by calls, and alone to finalise. Its generation is how often it was initialised.
    gate: Gate,
    life: Mutex<Life>,
    /// How many connections there are to each token, by label.
    connected: Mutex<BTreeMap<String, usize>>,
    /// PINs that were refused, by the token's label.
    refused: Mutex<Vec<(String, Zeroizing<Vec<u8>>)>>,
}

#[derive(Debug, Default)]
struct Life {
    leases: usize,
    initialised: bool,
    /// When it was last initialised anew.
    revived: Option<Stopwatch>,
}

/// The right to use a module. It stays initialised as long as there is one.
#[derive(Debug)]
pub(super) struct Lease(Arc<Module>);

/// While this is held, nobody finalises the module.
pub(super) struct Inside<'a> {
    /// The module's functions.
    pub(super) pkcs11: &'a Pkcs11,
    pass: Pass<'a>,
}

impl Inside<'_> {
    /// Sessions of another generation are gone, and their numbers may belong to others now.
    pub(super) fn generation(&self) -> u64 {
        self.pass.generation()
    }
}

impl Lease {
    /// Loads the module unless it is loaded, and initialises it unless it is in use.
    pub(super) fn take(file: &Path) -> Result<Self, TokenError> {
        let module = Module::find(file)?;
        module.begin()?;
        Ok(Self(module))
    }

    /// Allows calls until the answer is dropped.
    pub(super) fn enter(&self) -> Inside<'_> {
        Inside {
            pkcs11: &self.0.pkcs11,
            pass: self.0.gate.enter(),
        }
    }

    /// Initialises the module anew for a token that was not found in `generation`, when these tokens
    /// were `present`. Says whether it is worth a second look.
    pub(super) fn revive(&self, generation: u64, present: &[String]) -> bool {
        let module = &self.0;
        let mut life = locked(&module.life);
        if module.gate.generation() != generation {
            return true;
        }
        let recent = |since: Stopwatch| since.elapsed() < BETWEEN_REVIVALS;
        if SHARED.load(Ordering::Relaxed) || life.revived.is_some_and(recent) {
            return false;
        }
        let in_use = |label: &String| locked(&module.connected).contains_key(label);
        if present.iter().any(in_use) {
            return false;
        }
        let Some(alone) = module.gate.alone(PATIENCE) else {
            return false;
        };
        module.finalise(&mut life);
        alone.change();
        life.revived = Some(Stopwatch::start());
        module.initialise(&mut life).is_ok()
    }

    /// Counts a connection to a token.
    pub(super) fn connected(&self, token: &str) {
        *locked(&self.0.connected)
            .entry(token.to_owned())
            .or_default() += 1;
    }

    /// Takes it back.
    pub(super) fn disconnected(&self, token: &str) {
        let mut connected = locked(&self.0.connected);
        if let Some(count) = connected.get_mut(token) {
            *count = count.saturating_sub(1);
        }
        connected.retain(|_, count| *count > 0);
    }

    /// The PINs that were refused. While they are held, nobody else logs in.
    pub(super) fn refused(&self) -> MutexGuard<'_, Vec<(String, Zeroizing<Vec<u8>>)>> {
        locked(&self.0.refused)
    }
}

impl Clone for Lease {
    fn clone(&self) -> Self {
        locked(&self.0.life).leases += 1;
        Self(Arc::clone(&self.0))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Module {
    fn find(file: &Path) -> Result<Arc<Self>, TokenError> {
        let path = located(file)?;
        let mut modules = locked(&MODULES);
        if let Some(module) = modules.get(&path) {
            return Ok(Arc::clone(module));
        }
        let module = Arc::new(Self {
            pkcs11: Pkcs11::new(&path).map_err(|error| not_loaded(file, &error))?,
            file: file.to_owned(),
            gate: gate(&path),
            life: Mutex::default(),
            connected: Mutex::default(),
            refused: Mutex::default(),
        });
        modules.insert(path, Arc::clone(&module));
        Ok(module)
    }

    fn begin(&self) -> Result<(), TokenError> {
        let mut life = locked(&self.life);
        if !life.initialised {
            // Without a lease nobody is inside.
            if let Some(alone) = self.gate.alone(PATIENCE) {
                alone.change();
            }
            self.initialise(&mut life)?;
        }
        life.leases += 1;
        Ok(())
    }

    fn end(&self) {
        let mut life = locked(&self.life);
        life.leases = life.leases.saturating_sub(1);
        if life.leases > 0 {
            return;
        }
        if let Some(_alone) = self.gate.alone(PATIENCE)
            && !SHARED.load(Ordering::Relaxed)
        {
            self.finalise(&mut life);
        }
    }

    fn initialise(&self, life: &mut Life) -> Result<(), TokenError> {
        let result = self
            .pkcs11
            .initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK));
        match result {
            Ok(()) => {}
            Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {
                SHARED.store(true, Ordering::Relaxed);
            }
            Err(error) => {
                return Err(TokenError::NotStarted {
                    module: self.file.clone(),
                    call: CallError::from(&error),
                });
            }
        }
        life.initialised = true;
        Ok(())
    }

    fn finalise(&self, life: &mut Life) {
        if !std::mem::take(&mut life.initialised) {
            return;
        }
        // A module that cannot end will say so again when it is to begin.
        if let Err(error) = self.pkcs11.clone().finalize() {
            debug!(module = %self.file.display(), error = %CallError::from(&error), "not finalised");
        }
    }
}

/// Ends the use of every module for good, so that no thread is in one while the program ends: some
/// crash then. Waits a second at most for calls that are under way. Whoever calls a module
/// afterwards waits for ever.
pub fn finish() {
    let modules: Vec<_> = locked(&MODULES).values().map(Arc::clone).collect();
    let start = Stopwatch::start();
    for module in modules {
        let rest = FAREWELL.saturating_sub(start.elapsed());
        if module.gate.close(rest) && !SHARED.load(Ordering::Relaxed) {
            module.finalise(&mut locked(&module.life));
        }
    }
}

fn gate(path: &Path) -> Gate {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if name.starts_with(ONE_AFTER_THE_OTHER) {
        Gate::narrow()
    } else {
        Gate::default()
    }
}

/// The one name of a file. What has no slash is the system loader's to find.
fn located(file: &Path) -> Result<PathBuf, TokenError> {
    if file.components().count() < 2 {
        return Ok(file.to_owned());
    }
    let module = file.to_owned();
    fs::canonicalize(file).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => TokenError::NoModule(module),
        _ => TokenError::NotLoaded {
            module,
            reason: error.to_string(),
        },
    })
}

fn not_loaded(file: &Path, error: &Error) -> TokenError {
    let module = file.to_owned();
    match error {
        Error::MissingSymbol(_) => TokenError::NotAModule(module),
        Error::LibraryLoading(error) => TokenError::NotLoaded {
            module,
            reason: error.to_string(),
        },
        Error::Pkcs11(..) => TokenError::NotStarted {
            module,
            call: CallError::from(error),
        },
        other => TokenError::NotLoaded {
            module,
            reason: other.to_string(),
        },
    }
}

impl From<&Error> for CallError {
    fn from(error: &Error) -> Self {
        let (function, code) = match error {
            Error::Pkcs11(code, function) => (format!("C_{function:?}"), code_name(*code)),
            other => (
                "reading an answer of the module".to_owned(),
                other.to_string(),
            ),
        };
        Self { function, code }
    }
}

/// The name the standard gives a code: the crate's texts quote the standard at length.
fn code_name(code: RvError) -> String {
    let number = match code {
        RvError::VendorDefined(number) | RvError::UnknownErrorCode(number) => number,
        named => return format!("CKR{}", screaming(&format!("{named:?}"))),
    };
    format!("the code {number:#x}")
}

/// `PinIncorrect` as `_PIN_INCORRECT`.
fn screaming(name: &str) -> String {
    let mut words = String::with_capacity(2 * name.len());
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            words.push('_');
        }
        words.push(letter.to_ascii_uppercase());
    }
    words
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use cryptoki::context::Function;

    use super::*;

    #[test]
    fn codes_have_the_names_of_the_standard() {
        let rows = [
            (RvError::PinIncorrect, "CKR_PIN_INCORRECT"),
            (
                RvError::CryptokiNotInitialized,
                "CKR_CRYPTOKI_NOT_INITIALIZED",
            ),
            (RvError::GeneralError, "CKR_GENERAL_ERROR"),
            (RvError::VendorDefined(0x8000_0001), "the code 0x80000001"),
        ];
        for (code, name) in rows {
            let call = CallError::from(&Error::Pkcs11(code, Function::OpenSession));
            assert_eq!(
                call.to_string(),
                format!("C_OpenSession failed with {name}")
            );
        }
    }
}
