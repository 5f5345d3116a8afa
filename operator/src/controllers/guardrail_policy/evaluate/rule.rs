//! The rules that a violation can name.

/// A rule: a field of the policy, or why compliance is not known. The most severe first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Rule {
    /// A cluster of another operator has no `ProtectedDatabase`.
    Undeclared,
    /// The database cannot be reached.
    Unreachable,
    /// `spec.suspend` is true.
    Suspended,
    /// The database is not ready.
    NotReady,
    /// The operator did not check it, or not since a change, or not in time.
    NotChecked,
    /// `guards.minRowsAtRisk`
    MinRowsAtRisk,
    /// `guards.requiredMode`
    RequiredMode,
    /// `guards.maxLimits`
    MaxLimits,
    /// `guards.allowAllowances`
    AllowAllowances,
    /// `guards.requireTamperResistant`
    RequireTamperResistant,
    /// `backups.required`
    BackupRequired,
    /// `backups.maxAge`
    MaxAge,
    /// `backups.verifiedWithin`
    VerifiedWithin,
    /// `backups.allowPartial`
    AllowPartial,
    /// `backups.drilledWithin`
    DrilledWithin,
    /// `templates.tableGuard`
    GuardTemplate,
    /// `templates.backupSchedule`
    ScheduleTemplate,
}

impl Rule {
    /// Every rule.
    pub(crate) const ALL: [Self; 17] = [
        Self::Undeclared,
        Self::Unreachable,
        Self::Suspended,
        Self::NotReady,
        Self::NotChecked,
        Self::MinRowsAtRisk,
        Self::RequiredMode,
        Self::MaxLimits,
        Self::AllowAllowances,
        Self::RequireTamperResistant,
        Self::BackupRequired,
        Self::MaxAge,
        Self::VerifiedWithin,
        Self::AllowPartial,
        Self::DrilledWithin,
        Self::GuardTemplate,
        Self::ScheduleTemplate,
    ];

    /// As it stands in a violation.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Undeclared => "Undeclared",
            Self::Unreachable => "Unreachable",
            Self::Suspended => "Suspended",
            Self::NotReady => "NotReady",
            Self::NotChecked => "NotChecked",
            Self::MinRowsAtRisk => "guards.minRowsAtRisk",
            Self::RequiredMode => "guards.requiredMode",
            Self::MaxLimits => "guards.maxLimits",
            Self::AllowAllowances => "guards.allowAllowances",
            Self::RequireTamperResistant => "guards.requireTamperResistant",
            Self::BackupRequired => "backups.required",
            Self::MaxAge => "backups.maxAge",
            Self::VerifiedWithin => "backups.verifiedWithin",
            Self::AllowPartial => "backups.allowPartial",
            Self::DrilledWithin => "backups.drilledWithin",
            Self::GuardTemplate => "templates.tableGuard",
            Self::ScheduleTemplate => "templates.backupSchedule",
        }
    }

    /// As reports name it: OpenReports' severities.
    pub(crate) fn severity(self) -> &'static str {
        match self {
            Self::Undeclared | Self::MinRowsAtRisk | Self::RequiredMode | Self::BackupRequired | Self::MaxAge => "high",
            Self::Unreachable
            | Self::Suspended
            | Self::NotReady
            | Self::NotChecked
            | Self::VerifiedWithin
            | Self::MaxLimits
            | Self::AllowAllowances
            | Self::RequireTamperResistant => "medium",
            Self::AllowPartial | Self::DrilledWithin | Self::GuardTemplate | Self::ScheduleTemplate => "low",
        }
    }
}
