//! A server of one's own.

use std::path::Path;

use super::container::Container;
use super::local::Local;
use super::service::Service;

/// A server that nobody else uses, so that it may be hurt. It ends when this is dropped, and when the process ends,
/// however that comes about.
///
/// Its methods block, as those of `std::process` do, and panic when what they are asked for does not come about.
#[derive(Debug)]
pub struct Server(pub(super) Body);

#[derive(Debug)]
pub(super) enum Body {
    Local(Local),
    Container(Container),
}

impl Server {
    /// Where it is, before and after each restart.
    pub fn url(&self) -> &str {
        match &self.0 {
            Body::Local(local) => &local.url,
            Body::Container(container) => &container.url,
        }
    }

    /// What it says it is: its name and version.
    pub fn version(&self) -> &str {
        match &self.0 {
            Body::Local(local) => &local.version,
            Body::Container(container) => &container.version,
        }
    }

    /// What it was started for.
    pub fn service(&self) -> Service {
        match &self.0 {
            Body::Local(local) => local.service,
            Body::Container(container) => container.service,
        }
    }

    /// The folder of its files; they are gone when it is dropped.
    pub fn dir(&self) -> &Path {
        match &self.0 {
            Body::Local(local) => local.path(),
            Body::Container(container) => container.directory.path(),
        }
    }

    /// The ports of 127.0.0.1 that its members listen on.
    pub fn ports(&self) -> Vec<u16> {
        match &self.0 {
            Body::Local(local) => local.ports(),
            Body::Container(container) => container.ports().to_vec(),
        }
    }

    /// The processes of its members that are up; those in a container have no number here.
    pub fn pids(&self) -> Vec<u32> {
        match &self.0 {
            Body::Local(local) => local.members.iter().filter_map(super::member::Member::pid).collect(),
            Body::Container(_) => Vec::new(),
        }
    }

    /// Kills all its processes at once (SIGKILL).
    pub fn kill(&mut self) {
        match &mut self.0 {
            Body::Local(local) => {
                for number in 0..local.members.len() {
                    local.kill(number);
                }
            }
            Body::Container(container) => done(container.docker(&["kill"])),
        }
    }

    /// Asks all its processes to end, and waits until they have.
    pub fn stop_gracefully(&mut self) {
        match &mut self.0 {
            Body::Local(local) => {
                for number in 0..local.members.len() {
                    local.stop(number);
                }
            }
            Body::Container(container) => done(container.docker(&["stop"])),
        }
    }

    /// Starts it again over the same data and on the same ports, and waits until it can be used. A member that is up
    /// is left alone.
    pub fn restart(&mut self) {
        match &mut self.0 {
            Body::Local(local) => {
                for number in 0..local.members.len() {
                    done(local.restart(number));
                }
                done(local.settled());
            }
            Body::Container(container) => {
                done(container.docker(&["start"]));
                done(container.ready());
                done(container.settled());
            }
        }
    }

    /// Stops all its processes where they stand (SIGSTOP): connections stay, and nobody answers.
    pub fn freeze(&self) {
        match &self.0 {
            Body::Local(local) => local.members.iter().for_each(|member| member.signal("STOP")),
            Body::Container(container) => done(container.docker(&["pause"])),
        }
    }

    /// Lets them go on (SIGCONT).
    pub fn thaw(&self) {
        match &self.0 {
            Body::Local(local) => local.members.iter().for_each(|member| member.signal("CONT")),
            Body::Container(container) => done(container.docker(&["unpause"])),
        }
    }

    /// Kills one member of a set or cluster, counted from 0 in the order of [`ports`](Self::ports).
    pub fn kill_member(&mut self, number: usize) {
        self.local().kill(number);
    }

    /// Starts one member again, and waits until it answers; not until the others have taken it in.
    pub fn restart_member(&mut self, number: usize) {
        done(self.local().restart(number));
    }

    /// Stops one member where it stands.
    pub fn freeze_member(&mut self, number: usize) {
        self.local().members[number].signal("STOP");
    }

    /// Lets it go on.
    pub fn thaw_member(&mut self, number: usize) {
        self.local().members[number].signal("CONT");
    }

    fn local(&mut self) -> &mut Local {
        match &mut self.0 {
            Body::Local(local) => local,
            Body::Container(_) => panic!("members of a container cannot be told apart"),
        }
    }
}

fn done<T>(result: Result<T, String>) {
    if let Err(wrong) = result {
        panic!("{wrong}");
    }
}
