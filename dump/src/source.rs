//! What a restore must know of the dumped database besides its archive.

use serde::{Deserialize, Serialize};

/// What a restore must know of the dumped database besides its archive.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Source {
    /// `LC_COLLATE`
    pub collate: String,
    /// `LC_CTYPE`
    pub ctype: String,
    /// `libc`, `icu` or `builtin`.
    pub locale_provider: String,
    /// The locale of that provider, where it is not libc.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locale: Option<String>,
    /// Additional collation rules of ICU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icu_rules: Option<String>,
    /// The owner of the database.
    pub owner: String,
    /// Installed extensions.
    pub extensions: Vec<Extension>,
    /// Roles that own objects, are granted privileges on them, or are named in policies.
    pub roles: Vec<String>,
    /// Tablespaces of tables and indexes, except the default one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tablespaces: Vec<String>,
    /// Settings of the database, for all roles.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<Setting>,
}

/// An extension.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Extension {
    /// Its name.
    pub name: String,
    /// Its installed version.
    pub version: String,
    /// The schema of its objects.
    pub schema: String,
}

/// A setting of the database (`ALTER DATABASE … SET`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Setting {
    /// Its name.
    pub name: String,
    /// Its value. Absent if it belongs to the application, as its name has a dot: such values are often secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}
