//! Whether an SQL text only reads, whichever of PostgreSQL, MySQL and SQLite executes it.
//!
//! Databases disagree on where a string or a comment ends, and a text that one reads as a string another executes.
//! So two checks must pass. A scanner goes over the text as all of them would, refuses it where they could part
//! (backslashes, `#`, `$$`, `[`, executable and nested comments), and looks at every bare word: none may write, and
//! what is called must be on a list of harmless functions. Then every parser that understands the text must see
//! queries and nothing else, and at least one must understand it.

use sqlparser::ast::{Query, SetExpr, Statement};
use sqlparser::dialect::{Dialect, GenericDialect, MySqlDialect, PostgreSqlDialect, SQLiteDialect};
use sqlparser::parser::Parser;

/// The longest text that is looked at.
const TEXT_BYTES_MAX: usize = 32 << 10;
/// How deeply parentheses may nest: parsers take time that grows with it.
const DEPTH_MAX: usize = 12;
/// How many words, names, values and signs a text may have.
const TOKENS_MAX: usize = 2048;
/// How many words of [`NESTING`] a text may have.
const NESTING_MAX: usize = 64;

/// Words on which a parser may go one call deeper: too many of them exhaust its stack.
const NESTING: &[&str] = &[
    "apply",
    "array",
    "case",
    "cross",
    "desc",
    "describe",
    "except",
    "exists",
    "explain",
    "from",
    "full",
    "inner",
    "intersect",
    "interval",
    "join",
    "lateral",
    "minus",
    "natural",
    "outer",
    "pivot",
    "select",
    "straight_join",
    "table",
    "union",
    "unnest",
    "unpivot",
    "values",
    "with",
];

/// Words that write, lock, call, or hand over to something that may, wherever they stand.
const WRITING: &[&str] = &[
    "alter",
    "analyse",
    "analyze",
    "attach",
    "backup",
    "bulk",
    "call",
    "commit",
    "copy",
    "create",
    "dbcc",
    "deallocate",
    "declare",
    "delete",
    "deny",
    "detach",
    "do",
    "drop",
    "dumpfile",
    "exec",
    "execute",
    "flush",
    "for",
    "grant",
    "handler",
    "insert",
    "install",
    "into",
    "kill",
    "load",
    "lock",
    "merge",
    "nextval",
    "outfile",
    "output",
    "pragma",
    "prepare",
    "procedure",
    "purge",
    "refresh",
    "reindex",
    "rename",
    "repair",
    "replace",
    "reset",
    "restore",
    "returning",
    "revoke",
    "rollback",
    "savepoint",
    "set",
    "shutdown",
    "truncate",
    "unload",
    "unlock",
    "update",
    "upsert",
    "use",
    "vacuum",
    "waitfor",
];

/// Words of the language that may stand before a parenthesis.
const BEFORE_PARENTHESIS: &[&str] = &[
    "all",
    "and",
    "any",
    "as",
    "between",
    "by",
    "case",
    "distinct",
    "else",
    "except",
    "exists",
    "filter",
    "from",
    "group",
    "having",
    "in",
    "intersect",
    "is",
    "join",
    "lateral",
    "like",
    "limit",
    "materialized",
    "not",
    "offset",
    "on",
    "or",
    "over",
    "partition",
    "rollup",
    "select",
    "sets",
    "some",
    "then",
    "union",
    "using",
    "values",
    "when",
    "where",
];

/// Functions and types with a length that change nothing, reach nothing and wait for nothing.
const HARMLESS: &[&str] = &[
    "abs",
    "age",
    "array_agg",
    "array_length",
    "avg",
    "bool_and",
    "bool_or",
    "cardinality",
    "cast",
    "ceil",
    "ceiling",
    "char",
    "char_length",
    "character_length",
    "coalesce",
    "concat",
    "concat_ws",
    "convert",
    "corr",
    "count",
    "cume_dist",
    "current_date",
    "current_timestamp",
    "date",
    "date_add",
    "date_format",
    "date_part",
    "date_sub",
    "date_trunc",
    "datediff",
    "datetime",
    "day",
    "dayofweek",
    "decimal",
    "dense_rank",
    "every",
    "exp",
    "extract",
    "first_value",
    "floor",
    "greatest",
    "group_concat",
    "grouping",
    "hex",
    "hour",
    "if",
    "ifnull",
    "iif",
    "initcap",
    "instr",
    "isnull",
    "json_agg",
    "json_array",
    "json_array_length",
    "json_extract",
    "json_object",
    "json_value",
    "jsonb_agg",
    "jsonb_array_length",
    "julianday",
    "lag",
    "last_value",
    "lead",
    "least",
    "left",
    "length",
    "ln",
    "locate",
    "log",
    "lower",
    "lpad",
    "ltrim",
    "make_date",
    "max",
    "md5",
    "min",
    "minute",
    "mod",
    "month",
    "now",
    "ntile",
    "nullif",
    "numeric",
    "nvl",
    "octet_length",
    "percent_rank",
    "percentile_cont",
    "percentile_disc",
    "position",
    "pow",
    "power",
    "quarter",
    "rank",
    "reverse",
    "right",
    "round",
    "row_number",
    "rpad",
    "rtrim",
    "second",
    "sign",
    "split_part",
    "sqrt",
    "stddev",
    "strftime",
    "string_agg",
    "strpos",
    "substr",
    "substring",
    "sum",
    "time",
    "timestamp",
    "timestampdiff",
    "to_char",
    "to_date",
    "to_number",
    "to_timestamp",
    "total",
    "trim",
    "trunc",
    "typeof",
    "upper",
    "varchar",
    "variance",
    "week",
    "weekday",
    "year",
];

/// Whether every statement of a text is a pure read. What cannot be parsed, or could be read in two ways, is not.
pub fn reads(text: &str) -> bool {
    if text.len() > TEXT_BYTES_MAX || Scanner::new(text).scan().is_none() {
        return false;
    }
    let dialects: [&dyn Dialect; 4] =
        [&GenericDialect {}, &PostgreSqlDialect {}, &MySqlDialect {}, &SQLiteDialect {}];
    let mut understood = 0;
    for dialect in dialects {
        let parser = Parser::new(dialect).with_recursion_limit(48);
        let parsed = parser.try_with_sql(text).and_then(|mut parser| parser.parse_statements());
        if let Ok(statements) = parsed {
            if statements.is_empty() || !statements.iter().all(statement_reads) {
                return false;
            }
            understood += 1;
        }
    }
    understood > 0
}

fn statement_reads(statement: &Statement) -> bool {
    match statement {
        Statement::Query(query) => query_reads(query),
        Statement::Explain { analyze, statement, .. } => !analyze && statement_reads(statement),
        Statement::ExplainTable { .. }
        | Statement::ShowColumns { .. }
        | Statement::ShowDatabases { .. }
        | Statement::ShowSchemas { .. }
        | Statement::ShowTables { .. }
        | Statement::ShowVariable { .. }
        | Statement::ShowVariables { .. }
        | Statement::ShowViews { .. } => true,
        _ => false,
    }
}

fn query_reads(query: &Query) -> bool {
    let plain = query.locks.is_empty()
        && query.for_clause.is_none()
        && query.settings.is_none()
        && query.format_clause.is_none()
        && query.pipe_operators.is_empty();
    let tables = query.with.iter().flat_map(|with| &with.cte_tables);
    plain && tables.into_iter().all(|table| query_reads(&table.query)) && body_reads(&query.body)
}

fn body_reads(body: &SetExpr) -> bool {
    match body {
        SetExpr::Select(select) => select.into.is_none() && select.optimizer_hints.is_empty(),
        SetExpr::Query(query) => query_reads(query),
        SetExpr::SetOperation { left, right, .. } => body_reads(left) && body_reads(right),
        SetExpr::Values(_) | SetExpr::Table(_) => true,
        SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => false,
    }
}

/// What stood last, comments and space apart.
#[derive(PartialEq, Eq)]
enum Last {
    /// A bare word that is the language's own or a harmless function, and is not qualified.
    Callable,
    /// `FROM` or `JOIN`.
    From,
    /// Any other word, a number, a quoted name or a string: nothing that may be called.
    Name,
    /// A dot.
    Dot,
    /// Anything else.
    Other,
}

/// Goes over a text as every database would; `None` where they could part, or where something is not harmless.
struct Scanner<'t> {
    rest: &'t str,
    last: Last,
    depth: usize,
    tokens: usize,
    nesting: usize,
}

impl<'t> Scanner<'t> {
    fn new(text: &'t str) -> Scanner<'t> {
        Scanner { rest: text, last: Last::Other, depth: 0, tokens: 0, nesting: 0 }
    }

    fn scan(mut self) -> Option<()> {
        let odd = |c: char| c == '\\' || (c.is_control() && c != '\n' && c != '\t');
        if self.rest.contains(odd) {
            return None;
        }
        while let Some(first) = self.rest.chars().next() {
            match first {
                ' ' | '\t' | '\n' => self.skip(1)?,
                'a'..='z' | 'A'..='Z' | '_' => self.word()?,
                '0'..='9' => self.number()?,
                '\'' | '"' | '`' => self.quoted(first)?,
                '-' if self.rest.starts_with("--") => self.line_comment()?,
                '/' if self.rest.starts_with("/*") => self.block_comment()?,
                '$' => self.parameter()?,
                '(' => {
                    self.depth += 1;
                    if self.last == Last::Name || self.last == Last::Dot || self.depth > DEPTH_MAX {
                        return None;
                    }
                    self.take(1, Last::Other)?;
                }
                ')' => {
                    self.depth = self.depth.checked_sub(1)?;
                    // What follows a group is never called; `Name` refuses `(f)(x)` too.
                    self.take(1, Last::Name)?;
                }
                '.' => self.take(1, Last::Dot)?,
                ':' if self.rest.starts_with(":=") => return None,
                ',' | ';' | '+' | '-' | '*' | '/' | '%' | '<' | '>' | '=' | '!' | '|' | ':' | '?' => {
                    self.take(1, Last::Other)?;
                }
                _ => return None,
            }
        }
        (self.depth == 0).then_some(())
    }

    fn skip(&mut self, bytes: usize) -> Option<()> {
        self.rest = self.rest.get(bytes..)?;
        Some(())
    }

    fn take(&mut self, bytes: usize, last: Last) -> Option<()> {
        self.last = last;
        self.count()?;
        self.skip(bytes)
    }

    fn count(&mut self) -> Option<()> {
        self.tokens += 1;
        (self.tokens <= TOKENS_MAX).then_some(())
    }

    fn word(&mut self) -> Option<()> {
        let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let end = self.rest.find(|c| !part(c)).unwrap_or(self.rest.len());
        let (word, after) = self.rest.split_at_checked(end)?;
        // `E'…'`, `q'[…]'` and `U&'…'` end where only some databases think they end; `a$b$` is a name or a quote.
        if after.starts_with(['\'', '"', '`', '$', '&', '#', '@', '[']) {
            return None;
        }
        let word = word.to_ascii_lowercase();
        let qualified = self.last == Last::Dot;
        let called = after.trim_start_matches([' ', '\t', '\n']).starts_with('(');
        let harmless = BEFORE_PARENTHESIS.contains(&&*word) || HARMLESS.contains(&&*word);
        // `replace(…)` is the one name that is both a statement and a function that changes nothing.
        let function = word == "replace" && called && !qualified;
        if WRITING.contains(&&*word) && !function {
            return None;
        }
        if NESTING.contains(&&*word) {
            self.nesting += 1;
        }
        if self.nesting > NESTING_MAX {
            return None;
        }
        let last = match &*word {
            _ if qualified => Last::Name,
            "from" | "join" => Last::From,
            _ if harmless || function => Last::Callable,
            _ => Last::Name,
        };
        self.take(end, last)
    }

    fn number(&mut self) -> Option<()> {
        let end = self.rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '.');
        let end = end.unwrap_or(self.rest.len());
        let (number, after) = self.rest.split_at_checked(end)?;
        // `1e5` and `0x1F` are numbers, and anything else that runs on from a digit is two words to some.
        let sound = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        if !sound || after.starts_with(['\'', '"', '`', '$']) {
            return None;
        }
        self.take(end, Last::Name)
    }

    fn quoted(&mut self, quote: char) -> Option<()> {
        if quote == '\'' && self.last == Last::From {
            return None;
        }
        let mut inner = self.rest.get(1..)?;
        loop {
            let (text, after) = inner.split_once(quote)?;
            let name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b' ';
            if quote == '`' && !text.bytes().all(name) {
                return None;
            }
            inner = after;
            match after.strip_prefix(quote) {
                Some(doubled) if quote != '`' => inner = doubled,
                Some(_) => return None,
                None => break,
            }
        }
        self.rest = inner;
        self.last = Last::Name;
        self.count()
    }

    fn line_comment(&mut self) -> Option<()> {
        // MySQL wants white space after the dashes; without it they are two minus signs.
        let after = self.rest.get(2..)?;
        if !after.is_empty() && !after.starts_with([' ', '\t', '\n']) {
            return None;
        }
        self.rest = after.split_once('\n').map_or("", |(_, rest)| rest);
        Some(())
    }

    fn block_comment(&mut self) -> Option<()> {
        let (comment, rest) = self.rest.get(2..)?.split_once("*/")?;
        // MySQL and MariaDB execute `/*!…*/` and `/*M!…*/` and obey `/*+…*/`; PostgreSQL nests comments.
        if comment.contains(['!', '+']) || comment.contains("/*") || comment.ends_with('/') {
            return None;
        }
        self.rest = rest;
        Some(())
    }

    fn parameter(&mut self) -> Option<()> {
        let digits = self.rest.get(1..)?.bytes().take_while(u8::is_ascii_digit).count();
        let after = self.rest.get(1 + digits..)?;
        let runs_on = after.starts_with(|c: char| c.is_ascii_alphanumeric() || "_$'\"`".contains(c));
        if digits == 0 || runs_on {
            return None;
        }
        self.take(1 + digits, Last::Name)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn no_text_takes_long() {
        let hostile = [
            format!("SELECT * FROM {}a{}", "(".repeat(12), ")".repeat(12)),
            format!("SELECT * FROM {}a JOIN b{}", "(".repeat(12), " JOIN c)".repeat(12)),
            format!("SELECT {}1{}", "(".repeat(12), ",1)".repeat(12)),
            format!("SELECT {} 1", "not ".repeat(8000)),
            format!("SELECT {} 1", "- ".repeat(16000)),
            format!("SELECT {}", "case when ".repeat(3000)),
            format!("SELECT 1 {}", "union select 1 ".repeat(2000)),
            format!("SELECT 1 {}", "+ 1".repeat(10000)),
            format!("SELECT 1 FROM t WHERE {} 1", "a = 1 or ".repeat(3500)),
            format!("SELECT * FROM a {}", "join b ".repeat(4600)),
            format!("SELECT {}", "cast(".repeat(12)),
            format!("SELECT {}a{}", "date ".repeat(6000), ""),
        ];
        let words =
            BEFORE_PARENTHESIS.iter().chain(HARMLESS).chain(NESTING).chain(&["left", "table", "::int", "."]);
        let repeated = words.flat_map(|word| {
            let (few, most) = (NESTING_MAX - 2, TOKENS_MAX / 2 - 8);
            [few, most].into_iter().flat_map(move |times| {
                [
                    format!("SELECT * FROM a {}", format!("{word} b ").repeat(times)),
                    format!("SELECT {}", format!("{word} ").repeat(times)),
                    format!("SELECT 1 {}", format!("{word} 1 ").repeat(times)),
                    format!("{} 1", format!("{word} ").repeat(times)),
                ]
            })
        });
        for text in hostile.into_iter().chain(repeated) {
            let start = Instant::now();
            reads(&text);
            let head: String = text.chars().take(40).collect();
            assert!(start.elapsed() < Duration::from_secs(5), "{head}");
        }
    }
}
