{{- define "pgrail.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- /* A release called pgrail gives objects called pgrail, not pgrail-pgrail. Short enough for every suffix below. */ -}}
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

{{- /* What the operator does in the namespaces that it looks after. Every rule says why; there is no wildcard. */ -}}
{{- define "pgrail.rules" -}}
# Every kind is watched; `get` also reads one again that could not be parsed.
- apiGroups: [pgrail.dev]
  resources: [protecteddatabases, tableguards, guardexemptions, backupschedules, databasebackups, databaserestores]
  verbs: [get, list, watch]
# The finalizer: set before anything is installed in a database or a store, taken off once it is gone.
- apiGroups: [pgrail.dev]
  resources: [tableguards, guardexemptions, backupschedules, databasebackups]
  verbs: [patch]
# An exemption that is over goes after its ttlSecondsAfterFinished.
- apiGroups: [pgrail.dev]
  resources: [guardexemptions]
  verbs: [delete]
# A run of a schedule becomes a DatabaseBackup; retention removes those whose dump was pruned.
- apiGroups: [pgrail.dev]
  resources: [databasebackups]
  verbs: [create, delete]
# Where the API server enforces owner references, this is the right to be the owner of CronJobs and Jobs.
- apiGroups: [pgrail.dev]
  resources: [backupschedules/finalizers, databasebackups/finalizers]
  verbs: [update]
# The truth is reported by server-side apply of the status.
- apiGroups: [pgrail.dev]
  resources:
    - protecteddatabases/status
    - tableguards/status
    - guardexemptions/status
    - backupschedules/status
    - databasebackups/status
    - databaserestores/status
  verbs: [patch]
# Logins of databases and keys of stores, one by one and by the names that a spec gives. Never list, never watch.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get]
# How far a dump got, and the words it ended with, stand in the container states of its pod.
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
# A BackupSchedule is a CronJob; a backup by hand and pruning are Jobs. Finished ones beyond the history are deleted.
- apiGroups: [batch]
  resources: [cronjobs, jobs]
  verbs: [get, list, watch, create, patch, delete]
# What happened is said as Events; the same thing again is counted up.
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
