//! `shangmq ctl alarms`: what is wrong with the running broker that an operator has to see to.

use std::io::{self, Write};

use super::super::certs::utc;
use crate::operator::{Alarm, AlarmList};

pub(super) fn list(found: &AlarmList, json: bool, out: &mut impl Write) -> io::Result<()> {
    if json {
        return writeln!(out, "{}", serde_json::to_string(found)?);
    }
    if found.active.is_empty() {
        writeln!(out, "no alarm is raised")?;
    }
    for alarm in found.active.iter().chain(&found.past) {
        let Alarm { name, message, activate_at, .. } = alarm;
        match alarm.deactivate_at {
            None => writeln!(out, "{name}: since {}", utc(*activate_at))?,
            Some(over) => writeln!(out, "{name}: over, from {} to {}", utc(*activate_at), utc(over))?,
        }
        writeln!(out, "  {message}")?;
        alarm.causes.iter().try_for_each(|cause| writeln!(out, "  {cause}"))?;
    }
    Ok(())
}
