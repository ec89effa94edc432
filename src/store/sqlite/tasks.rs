//! Tasks, in SQL.

use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::rows::{id, list_of, words};
use super::state::{Read, changed};
use super::{Sqlite, micros, moment, within};
use crate::call::{AgentId, RecordId};
use crate::store::tasks::{TASKS_MAX, Task, Tasks};
use crate::store::{Answer, Changed, StoreError};

impl Tasks for Sqlite {
    fn open_task(&self, task: Task) -> Answer<'_, ()> {
        Box::pin(async move {
            let ended = sqlx::query("DELETE FROM task WHERE until <= ?").bind(micros(task.at));
            ended.execute(&self.writer).await.map_err(within(&self.path))?;
            let ids = |agents: &[AgentId]| {
                let ids: Vec<String> = agents.iter().map(|agent| agent.as_str().to_owned()).collect();
                words(&ids)
            };
            let done = sqlx::query(
                "INSERT INTO task (id, by, agents, destinations, systems, purpose, instance, isolated, parent, above, at, until)
                 SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ? WHERE (SELECT count(*) FROM task) < ?",
            )
            .bind(task.id.to_string())
            .bind(task.by)
            .bind(ids(&task.agents))
            .bind(words(&task.destinations))
            .bind(words(&task.systems))
            .bind(task.purpose)
            .bind(task.instance)
            .bind(task.isolated)
            .bind(task.parent.map(|parent| parent.to_string()))
            .bind(ids(&task.above))
            .bind(micros(task.at))
            .bind(micros(task.until))
            .bind(TASKS_MAX as i64)
            .execute(&self.writer)
            .await
            .map_err(within(&self.path))?;
            if done.rows_affected() == 0 { Err(StoreError::Full("tasks")) } else { Ok(()) }
        })
    }

    fn tasks(&self) -> Answer<'_, Vec<Task>> {
        Box::pin(async move {
            let rows = sqlx::query("SELECT * FROM task ORDER BY at, id LIMIT ?").bind(TASKS_MAX as i64);
            let rows = rows.fetch_all(&self.readers).await;
            rows.and_then(|rows| rows.iter().map(task).collect()).map_err(within(&self.path))
        })
    }

    fn close_task(&self, id: RecordId) -> Answer<'_, Changed> {
        Box::pin(async move {
            let done = sqlx::query("DELETE FROM task WHERE id = ?").bind(id.to_string());
            let done = done.execute(&self.writer).await.map_err(within(&self.path))?;
            Ok(changed(done.rows_affected()))
        })
    }
}

fn task(row: &SqliteRow) -> Read<Task> {
    let ids = |name: &str| {
        let ids = list_of(row, name)?;
        Ok::<_, sqlx::Error>(ids.iter().map(|id| AgentId::from_normalised(id)).collect())
    };
    let parent: Option<String> = row.try_get("parent")?;
    Ok(Task {
        id: id(row, "id")?,
        by: row.try_get("by")?,
        agents: ids("agents")?,
        destinations: list_of(row, "destinations")?,
        systems: list_of(row, "systems")?,
        purpose: row.try_get("purpose")?,
        instance: row.try_get("instance")?,
        isolated: row.try_get("isolated")?,
        parent: parent.as_deref().and_then(RecordId::parse),
        above: ids("above")?,
        at: moment(row.try_get("at")?),
        until: moment(row.try_get("until")?),
    })
}
