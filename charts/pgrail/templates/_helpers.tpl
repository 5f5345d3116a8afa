{{- define "pgrail.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- /* The objects of a release named pgrail are named pgrail, and not pgrail-pgrail. The length leaves room for every suffix below. */ -}}
{{- define "pgrail.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "pgrail.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "pgrail.selectorLabels" -}}
app.kubernetes.io/name: {{ include "pgrail.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "pgrail.labels" -}}
{{ include "pgrail.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "pgrail.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "pgrail.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name is needed when serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "pgrail.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- /* Not empty if the release itself asks for more than one replica. */ -}}
{{- define "pgrail.severalReplicas" -}}
{{- if gt (int (default 1 .Values.replicas)) 1 }}true{{ end -}}
{{- end -}}

{{- /* The permissions of the operator in the namespaces that it watches, each with its reason. There are no wildcards. */ -}}
{{- define "pgrail.rules" -}}
# The operator watches every kind. `get` reads an object again that could not be parsed.
- apiGroups: [pgrail.dev]
  resources: [protecteddatabases, tableguards, guardexemptions, backupschedules, databasebackups, databaserestores]
  verbs: [get, list, watch]
# Sets the finalizer before anything is created in a database or a store, and removes it after the cleanup.
- apiGroups: [pgrail.dev]
  resources: [protecteddatabases, tableguards, guardexemptions, backupschedules, databasebackups]
  verbs: [patch]
# Deletes finished exemptions after ttlSecondsAfterFinished.
- apiGroups: [pgrail.dev]
  resources: [guardexemptions]
  verbs: [delete]
# Creates a DatabaseBackup for each run of a schedule, and deletes it after its dump was pruned.
- apiGroups: [pgrail.dev]
  resources: [databasebackups]
  verbs: [create, delete]
# Required to set owner references on CronJobs and Jobs if the API server enforces OwnerReferencesPermissionEnforcement.
- apiGroups: [pgrail.dev]
  resources: [backupschedules/finalizers, databasebackups/finalizers, databaserestores/finalizers]
  verbs: [update]
# Reports the status, by server-side apply.
- apiGroups: [pgrail.dev]
  resources:
    - protecteddatabases/status
    - tableguards/status
    - guardexemptions/status
    - backupschedules/status
    - databasebackups/status
    - databaserestores/status
  verbs: [patch]
# Reads the logins of databases and the credentials of stores that a spec names. Never list or watch.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get]
# Reads the progress and the result of a dump from the container states of its pod.
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
# Creates a CronJob for each BackupSchedule, and Jobs for single backups, for restores and for pruning. Deletes finished Jobs beyond the history limits.
- apiGroups: [batch]
  resources: [cronjobs, jobs]
  verbs: [get, list, watch, create, patch, delete]
# Creates Events, and increments the count of repeated ones.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}

{{- /* The same of an operator that checks policies only. */ -}}
{{- define "pgrail.onlyPoliciesRules" -}}
# Policies are evaluated from the objects of all namespaces. Nothing is changed.
- apiGroups: [pgrail.dev]
  resources: [protecteddatabases, tableguards, guardexemptions, backupschedules, databasebackups, databaserestores]
  verbs: [get, list, watch]
# Creates Events, and increments the count of repeated ones.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}

{{- define "pgrail.subjects" }}
subjects:
  - kind: ServiceAccount
    name: {{ include "pgrail.serviceAccountName" . }}
    namespace: {{ .Release.Namespace }}
{{- end }}
