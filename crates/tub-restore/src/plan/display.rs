//! A plan as text, for people and for tests that compare it with what it should be.

use super::{Ids, RestorePlan, TaskPlan};
use std::fmt;

impl fmt::Display for RestorePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ids {
            Ids::Keep => writeln!(f, "ids     keep")?,
            Ids::New => writeln!(f, "ids     new")?,
        }
        writeln!(f, "clocks  {:?}", self.clocks)?;
        for (index, file) in self.mapped_files.iter().enumerate() {
            writeln!(f, "file {index:<3} {}", file.path())?;
        }
        for step in &self.file_steps {
            writeln!(f, "fd      {step:?}")?;
        }
        for (index, birth) in self.births.iter().enumerate() {
            writeln!(f, "birth {index} {birth}")?;
        }
        self.tasks.iter().try_for_each(|task| write!(f, "{task}"))?;
        for warning in &self.warnings {
            writeln!(f, "warning {warning}")?;
        }
        Ok(())
    }
}

impl fmt::Display for TaskPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "process {}", self.pid)?;
        writeln!(f, "memory  {}", self.memory)?;
        writeln!(f, "blob    {}", self.blob)?;
        writeln!(f, "cwd     {}", self.cwd)?;
        for step in &self.file_steps {
            writeln!(f, "fd      {step:?}")?;
        }
        for (index, program) in self.programs.iter().enumerate() {
            writeln!(f, "thread {index} (tid {}, {:?})", program.tid, program.name)?;
            for op in &program.ops {
                writeln!(f, "  {op}")?;
            }
        }
        Ok(())
    }
}
