//! A server made of processes of this machine.

use std::path::Path;

use super::directory::Directory;
use super::guardian::Guardian;
use super::member::Member;
use super::patience::{READY, wait};
use super::service::Service;
use super::settings::Settings;
use super::{port, recipe};

/// How often a start is tried when somebody else was faster at a port.
const ATTEMPTS: usize = 5;

#[derive(Debug)]
pub(super) struct Local {
    pub(super) service: Service,
    pub(super) url: String,
    pub(super) version: String,
    pub(super) members: Vec<Member>,
    // Before the folder's name: it removes what is in there.
    guardian: Guardian,
    directory: Directory,
}

impl Local {
    pub(super) fn start(service: Service, settings: &Settings) -> Result<Self, String> {
        let mut attempt = 1;
        loop {
            match Self::attempt(service, settings) {
                Err(wrong) if attempt < ATTEMPTS && wrong.to_lowercase().contains("already in use") => {
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    fn attempt(service: Service, settings: &Settings) -> Result<Self, String> {
        let ports = port::free(service.members())?;
        let directory = Directory::new(service.name())?;
        let guardian = Guardian::new(directory.path())?;
        let members = recipe::members(service, &directory, &ports, settings)?;
        let url = recipe::url(service, &ports, settings)?;
        let mut local = Self { service, url, version: String::new(), members, guardian, directory };
        for number in 0..local.members.len() {
            local.run(number)?;
        }
        for number in 0..local.members.len() {
            local.version = local.ready(number)?;
        }
        recipe::prepare(service, &ports, settings).map_err(|wrong| local.explain(&wrong))?;
        recipe::settled(service, &ports).map_err(|wrong| local.explain(&wrong))?;
        Ok(local)
    }

    fn run(&mut self, number: usize) -> Result<(), String> {
        self.members[number].start()?;
        self.guardian.pids(self.members.iter().filter_map(Member::pid))
    }

    /// Waits until a process answers; it is its own answer if the process is still there afterwards.
    fn ready(&mut self, number: usize) -> Result<String, String> {
        let (service, name) = (self.service, self.service.name());
        let member = &mut self.members[number];
        let ready = wait(&format!("{name} answers"), READY, || {
            let hello = recipe::hello(service, "127.0.0.1", member.port, "postgres");
            match (member.ended(), hello) {
                (Some(status), _) => Err(format!("{name} has ended by itself: {status}")),
                (None, hello) => Ok(hello.ok()),
            }
        });
        ready.map_err(|wrong| format!("{wrong}; the end of its log:\n{}", self.members[number].tail()))
    }

    fn explain(&self, wrong: &str) -> String {
        let tails: Vec<String> = self.members.iter().map(Member::tail).collect();
        format!("{}: {wrong}; the ends of its logs:\n{}", self.service.name(), tails.join("\n--\n"))
    }

    pub(super) fn ports(&self) -> Vec<u16> {
        self.members.iter().map(|member| member.port).collect()
    }

    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(super) fn kill(&mut self, number: usize) {
        self.members[number].signal("KILL");
        self.bury(number);
    }

    pub(super) fn stop(&mut self, number: usize) {
        // The fast way of PostgreSQL; its polite one waits for its clients to go.
        let signal = if self.service == Service::Postgres { "INT" } else { "TERM" };
        self.members[number].ask(signal);
        self.bury(number);
    }

    fn bury(&mut self, number: usize) {
        self.members[number].bury();
        // Whoever has its number from now on is not meant.
        let _ = self.guardian.pids(self.members.iter().filter_map(Member::pid));
    }

    /// Starts a process that is down, and waits until it answers.
    pub(super) fn restart(&mut self, number: usize) -> Result<(), String> {
        if self.members[number].ended().is_some() {
            self.bury(number);
        }
        if self.members[number].pid().is_some() {
            return Ok(());
        }
        let mut attempt = 1;
        loop {
            self.run(number)?;
            match self.ready(number) {
                // What a killed server has left of itself may need a moment to go.
                Err(_) if attempt < ATTEMPTS && self.members[number].ended().is_some() => {
                    self.bury(number);
                    attempt += 1;
                }
                result => return result.map(drop),
            }
        }
    }

    pub(super) fn settled(&self) -> Result<(), String> {
        recipe::settled(self.service, &self.ports()).map_err(|wrong| self.explain(&wrong))
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        // Not by the guardian alone: its shell may have been killed.
        for member in &mut self.members {
            member.signal("KILL");
            member.bury();
        }
        let _ = self.guardian.pids(std::iter::empty());
    }
}
