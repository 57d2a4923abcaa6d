{{/*
What the pods of injector and gateway have in common. The sidecar in the pods of other charts is in _pod.tpl.
*/}}

{{/* Of a pod. Files of Secrets and ConfigMaps belong to this group, so nobody else can read the keys. */}}
{{- define "countersign.podSecurity" -}}
runAsNonRoot: true
runAsUser: 4343
runAsGroup: 4343
fsGroup: 4343
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "countersign.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* A start may take a minute, as its keys may have to be fetched; then two seconds must do. */}}
{{- define "countersign.probes" -}}
startupProbe:
  httpGet:
    path: /readyz
    port: countersign-adm
  periodSeconds: 1
  failureThreshold: 60
readinessProbe:
  httpGet:
    path: /readyz
    port: countersign-adm
  periodSeconds: 5
  timeoutSeconds: 2
livenessProbe:
  httpGet:
    path: /livez
    port: countersign-adm
  periodSeconds: 10
  timeoutSeconds: 2
{{- end }}

{{/* Where pods go: (dict "root" $ "component" NAME "values" .Values.COMPONENT). */}}
{{- define "countersign.placement" -}}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if ne .values.spread "off" }}
topologySpreadConstraints:
  {{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ $key }}
    {{- /* Clusters of one zone are common, so only nodes can be required. */}}
    whenUnsatisfiable: {{ and (eq $.values.spread "required") (hasPrefix "kubernetes.io" $key) | ternary "DoNotSchedule" "ScheduleAnyway" }}
    labelSelector:
      matchLabels:
        {{- include "countersign.selector" $ | nindent 8 }}
  {{- end }}
{{- end }}
{{- end }}

{{/* A number as it was written: what comes of JSON is a float, and prints large ones with an exponent. */}}
{{- define "countersign.text" -}}
{{- if kindIs "float64" . -}}
{{- int64 . -}}
{{- else -}}
{{- . -}}
{{- end -}}
{{- end }}

{{/* A rule of a NetworkPolicy for the admin port: who may, beside the node's own probes. */}}
{{- define "countersign.adminRule" -}}
{{- with .Values.monitoring.from }}
- from:
    {{- toYaml . | nindent 4 }}
  ports:
    - port: countersign-adm
{{- end }}
{{- end }}
