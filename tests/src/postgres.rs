//! A PostgreSQL server of a test's own: Debian's, as a user without rights, in a temporary folder.
//!
//! Its settings are those that it comes with: what is committed is on the disk. It is reached by a socket in its folder, where all roles
//! are let in, and at a local port, where they need their password ([`PASSWORD`]).

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, chown, geteuid};
use postgres::{Client, Config, NoTls};
use tempfile::TempDir;

/// The role that owns the databases.
pub const ROLE: &str = "line";

/// Its password.
pub const PASSWORD: &str = "six-legged table";

/// Where Debian puts the programs of all versions.
const DEBIAN: &str = "/usr/lib/postgresql";

/// Where Fedora and Homebrew put them.
const OTHERS: [&str; 3] = [
    "/usr/bin",
    "/opt/homebrew/opt/postgresql@17/bin",
    "/usr/local/opt/postgresql@17/bin",
];

/// A server. It ends when this is dropped.
pub struct Server {
    folder: TempDir,
    port: u16,
    user: Option<User>,
    process: Option<Child>,
    databases: AtomicU32,
    /// Ends the server and takes its folder away when this process is gone, however that came.
    _guardian: Child,
}

/// A server that is stopped.
pub struct Frozen(Vec<Pid>);

impl Drop for Frozen {
    fn drop(&mut self) {
        for process in &self.0 {
            kill(*process, Signal::SIGCONT).expect("it goes on");
        }
    }
}

/// Waits until nobody holds its input any more.
const GUARDIAN: &str = r#"cat > /dev/null
while read -r process < "$0/data/postmaster.pid" && kill -QUIT "$process"; do sleep 0.1; done 2> /dev/null
rm -rf "$0""#;

/// The programs of the newest version that is installed.
fn program(name: &str) -> PathBuf {
    let versions = fs::read_dir(DEBIAN).into_iter().flatten().flatten();
    let newest = versions
        .filter(|version| version.path().join("bin").join(name).is_file())
        .max_by_key(|version| version.file_name().to_string_lossy().parse::<u32>().ok());
    let newest = newest.map(|version| version.path().join("bin").join(name));
    let mut others = OTHERS.iter().map(|folder| Path::new(folder).join(name));
    newest
        .or_else(|| others.find(|path| path.is_file()))
        .expect("PostgreSQL is not there: run cargo xtask setup")
}

impl Server {
    /// Starts a server.
    ///
    /// # Panics
    /// If PostgreSQL is not installed or does not work.
    #[must_use]
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        // The server refuses to be root.
        let user = geteuid().is_root().then(|| {
            ["postgres", "nobody"]
                .iter()
                .find_map(|name| User::from_name(name).ok().flatten())
                .expect("a user without rights")
        });
        if let Some(user) = &user {
            chown(folder.path(), Some(user.uid), Some(user.gid)).expect("its folder");
        }
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("its folder");
        let guardian = Command::new("sh")
            .args(["-c", GUARDIAN])
            .arg(folder.path())
            .stdin(Stdio::piped())
            .spawn()
            .expect("a shell");
        let mut server = Self {
            folder,
            port: 0,
            user,
            process: None,
            databases: AtomicU32::new(0),
            _guardian: guardian,
        };
        let data = server.path("data");
        let made = server
            .command("initdb")
            .args(["--auth-local=trust", "--auth-host=scram-sha-256"])
            .args(["--no-locale", "--encoding=UTF8", "--username=owner", "-D"])
            .arg(data)
            .output()
            .expect("initdb starts");
        let said = String::from_utf8_lossy(&made.stderr).into_owned();
        assert!(made.status.success(), "initdb: {said}");
        server.go_on();
        let mut client = server.client("owner", "postgres").expect("it is there");
        let role = format!("CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'");
        client.batch_execute(&role).expect("a role");
        server
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(program(name));
        command.current_dir(self.folder.path());
        if let Some(user) = &self.user {
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        command
    }

    /// A file in the server's folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Gives a file in the server's folder to the server alone, as it demands of a key.
    ///
    /// # Panics
    /// If the file is not there.
    pub fn own(&self, name: &str) {
        let path = self.path(name);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a file");
        if let Some(user) = &self.user {
            chown(&path, Some(user.uid), Some(user.gid)).expect("a file");
        }
    }

    /// Starts the server that was stopped, on the same data.
    ///
    /// # Panics
    /// If it does not start.
    pub fn go_on(&mut self) {
        self.go_on_with(&[]);
    }

    /// As [`Server::go_on`], with further settings.
    ///
    /// # Panics
    /// If it does not start.
    pub fn go_on_with(&mut self, settings: &[&str]) {
        // Another program may take the port between the look and the start. A server that was stopped has the same one again: its
        // socket is named by it, and so is the registry.
        for _ in 0..10 {
            if self.databases.load(Ordering::Relaxed) == 0 {
                let free = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
                self.port = free.local_addr().expect("a port").port();
            }
            let log = fs::File::create(self.path("log")).expect("a log");
            let mut command = self.command("postgres");
            command
                .arg("-D")
                .arg(self.path("data"))
                .args(["-p", &self.port.to_string(), "-h", "127.0.0.1", "-k"])
                .arg(self.folder.path());
            for setting in settings {
                command.args(["-c", setting]);
            }
            let process = command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()
                .expect("postgres starts");
            let process = self.process.insert(process);
            loop {
                if process.try_wait().expect("its end").is_some() {
                    break;
                }
                if client(self.folder.path(), self.port, "owner", "postgres").is_ok() {
                    return;
                }
                thread::sleep(Duration::from_millis(20));
            }
            thread::sleep(Duration::from_millis(200));
        }
        let log = fs::read_to_string(self.path("log")).unwrap_or_default();
        panic!("postgres does not start: {log}");
    }

    /// Stops the server as a crash does: nobody is told, nothing is finished (`pg_ctl stop -m immediate`).
    ///
    /// # Panics
    /// If it does not run.
    pub fn crash(&mut self) {
        self.end(Signal::SIGQUIT);
    }

    /// Has the server keep all its connections and say nothing more, until what comes back is dropped.
    ///
    /// # Panics
    /// If it does not run.
    #[must_use]
    pub fn freeze(&self) -> Frozen {
        let mut owner = self.client("owner", "postgres").expect("it is there");
        let serving = "SELECT pid FROM pg_stat_activity
            WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
        let serving = owner.query(serving, &[]).expect("who serves");
        drop(owner);
        let server = self.process.as_ref().expect("it runs");
        let server = i32::try_from(server.id()).expect("a process id");
        // The server itself first: nobody is let in from then on.
        let processes: Vec<_> = std::iter::once(server)
            .chain(serving.iter().map(|row| row.get(0)))
            .map(Pid::from_raw)
            .collect();
        for process in &processes {
            kill(*process, Signal::SIGSTOP).expect("it stops");
        }
        Frozen(processes)
    }

    fn end(&mut self, signal: Signal) {
        if let Some(mut process) = self.process.take() {
            let id = Pid::from_raw(i32::try_from(process.id()).expect("a process id"));
            let _ = kill(id, signal);
            process.wait().expect("it ends");
        }
    }

    fn client(&self, user: &str, database: &str) -> Result<Client, postgres::Error> {
        client(self.folder.path(), self.port, user, database)
    }

    /// Makes an empty database, and gives its name.
    ///
    /// # Panics
    /// If it cannot be made.
    #[must_use]
    pub fn database(&self) -> String {
        let name = format!("plant{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.database_with(&name, "UTF8");
        name
    }

    /// Makes an empty database with this encoding.
    ///
    /// # Panics
    /// If it cannot be made.
    pub fn database_with(&self, name: &str, encoding: &str) {
        let mut owner = self.client("owner", "postgres").expect("it is there");
        let sql =
            format!("CREATE DATABASE {name} OWNER {ROLE} ENCODING '{encoding}' TEMPLATE template0");
        owner.batch_execute(&sql).expect("a database");
    }

    /// A database as the station names it, by the server's socket.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        let folder = self.folder.path().display();
        format!(
            "postgresql://{ROLE}@:{}/{database}?host={folder}",
            self.port
        )
    }

    /// Where the server listens on this computer.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// A database as the station names it, by the server's port.
    #[must_use]
    pub fn port_url(&self, database: &str) -> String {
        format!("postgresql://{ROLE}@127.0.0.1:{}/{database}", self.port)
    }

    /// A connection of its own to a database.
    ///
    /// # Panics
    /// If the server is not there.
    #[must_use]
    pub fn raw(&self, database: &str) -> Client {
        self.client(ROLE, database).expect("it is there")
    }
}

fn client(folder: &Path, port: u16, user: &str, database: &str) -> Result<Client, postgres::Error> {
    Config::new()
        .host_path(folder)
        .port(port)
        .user(user)
        .dbname(database)
        .connect(NoTls)
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end(Signal::SIGQUIT);
    }
}
