{{/*
The settings of a sidecar, by the names of annotations without their prefix: their defaults, and everything that is wrong with
them, told at once in the words of `countersign inject`, which a test compares. Used by _pod.tpl, and by checks.yaml for
injector.defaults. How each is written is in _values.tpl. Sees no container of the app: what only these can be wrong
with is for `countersign inject` and the injector to refuse.
*/}}

{{/* The form of each, by name; as JSON. */}}
{{- define "countersign.settings.forms" -}}
{{- dict
      "keys" "object" "config" "object" "client-id" "clientId" "private-key" "file" "alipay-public-key" "file"
      "key-version" "keyVersion" "way-in" "wayIn" "hosts" "hosts" "no-proxy" "noProxy" "redirect-ports" "ports"
      "redirect-exempt-networks" "networks" "default-host" "host" "upstream" "origin" "upstream-ca" "file" "app" "app"
      "egress-port" "ownPort" "ingress-port" "ownPort" "admin-port" "ownPort" "trust" "switch" "sidecar" "kind"
      "image" "image" "redirect-image" "image" "image-pull-policy" "pullPolicy" "cpu-request" "quantity"
      "cpu-limit" "quantity" "memory-request" "quantity" "memory-limit" "quantity" "run-as-user" "uid" "log-level" "plain"
      | toJson -}}
{{- end }}

{{/* What holds where nothing is said; as JSON. */}}
{{- define "countersign.settings.defaults" -}}
{{- dict
      "private-key" "partner.pem" "alipay-public-key" "alipayplus.pub.pem" "key-version" "1"
      "way-in" "env" "redirect-ports" "443,80"
      "hosts" "open-na.alipayplus.com,open-na-global.alipayplus.com,open-sea.alipayplus.com,open-sea-global.alipayplus.com"
      "egress-port" "18441" "ingress-port" "18442" "admin-port" "18449"
      "trust" "enabled" "sidecar" "native"
      "image" "countersign:0.1.0" "redirect-image" "countersign:0.1.0-redirect" "image-pull-policy" "IfNotPresent"
      "cpu-request" "50m" "cpu-limit" "none" "memory-request" "32Mi" "memory-limit" "512Mi"
      "run-as-user" "4343" "log-level" "info"
      | toJson -}}
{{- end }}

{{/* All settings as texts, with their defaults, checked; as JSON. */}}
{{- define "countersign.pod.settings" -}}
{{- with include "countersign.pod.problems" . -}}
{{- fail . -}}
{{- end -}}
{{- $settings := include "countersign.settings.defaults" . | fromJson -}}
{{- range $name, $value := . -}}
{{- $_ := set $settings $name (include "countersign.text" $value) -}}
{{- end -}}
{{- toJson $settings -}}
{{- end }}

{{/* Everything that is wrong with settings of a pod, one line each. */}}
{{- define "countersign.pod.problems" -}}
{{- $forms := include "countersign.settings.forms" . | fromJson -}}
{{- $wrong := include "countersign.settings.each" (dict "settings" . "forms" $forms "section" "sidecar") -}}
{{- if not $wrong -}}
{{- $wrong = printf "%s\n%s" (include "countersign.settings.source" .) (include "countersign.settings.together" (dict "settings" . "section" "sidecar")) -}}
{{- end -}}
{{- trim $wrong -}}
{{- end }}

{{/* What is wrong with each by itself: (dict "settings" MAP "forms" MAP "section" NAME). */}}
{{- define "countersign.settings.each" -}}
{{- range $name, $value := .settings -}}
{{- $text := include "countersign.text" $value -}}
{{- $wrong := "" -}}
{{- if not (hasKey $.forms $name) -}}
{{- $wrong = printf "there is none of this name; there are %s" (keys $.forms | sortAlpha | join ", ") -}}
{{- else if not $text -}}
{{- $wrong = "is empty; leave it out, or give it a value" -}}
{{- /* It is multiplied by the containers it goes to. */ -}}
{{- else if gt (len $text) 4096 -}}
{{- $wrong = printf "has %d characters, and at most 4096 may stand here" (len $text) -}}
{{- else -}}
{{- $wrong = include (printf "countersign.value.%s" (get $.forms $name)) $text -}}
{{- end -}}
{{- with $wrong }}
{{ $.section }}.{{ $name }}: {{ . }}
{{- end -}}
{{- end -}}
{{- end }}

{{/* What is missing, or goes with another only. */}}
{{- define "countersign.settings.source" -}}
{{- if not (hasKey . "keys") }}
sidecar.keys: is missing; it names the Secret with the key files
{{- end -}}
{{- if hasKey . "config" -}}
{{- range $name := list "client-id" "private-key" "alipay-public-key" "key-version" "default-host" "upstream" "upstream-ca" "app" -}}
{{- if hasKey $ $name }}
sidecar.{{ $name }}: goes without sidecar.config only, which is here, too; config.yaml says this
{{- end -}}
{{- end -}}
{{- else if not (hasKey . "client-id") }}
sidecar.client-id: is missing; it names the partner's client id, or config with the name of a ConfigMap
{{- end -}}
{{- $way := get . "way-in" | default "env" -}}
{{- range $name, $its := dict "hosts" "hostAliases" "no-proxy" "env" "redirect-ports" "redirect" "redirect-exempt-networks" "redirect" "redirect-image" "redirect" -}}
{{- if and (hasKey $ $name) (ne $way $its) }}
sidecar.{{ $name }}: goes with sidecar.way-in: {{ $its }} only
{{- end -}}
{{- end -}}
{{- end }}

{{/* What is good each for itself and not together: (dict "settings" MAP "section" NAME). */}}
{{- define "countersign.settings.together" -}}
{{- $settings := include "countersign.settings.defaults" . | fromJson -}}
{{- range $name, $value := .settings -}}
{{- $_ := set $settings $name (include "countersign.text" $value) -}}
{{- end -}}
{{- if eq (get $settings "way-in") "env" -}}
{{- $hosts := list -}}
{{- range $host := append (splitList "," $settings.hosts) (get $settings "default-host") -}}
{{- $hosts = append $hosts (trim $host) -}}
{{- end -}}
{{- range $past := splitList "," (get $settings "no-proxy") -}}
{{- $past = trim $past -}}
{{- $name := trimPrefix "." $past -}}
{{- $led := "" -}}
{{- range $host := $hosts -}}
{{- if and $name (not $led) (hasSuffix (printf ".%s" $name) (printf ".%s" $host)) -}}
{{- $led = $host -}}
{{- end -}}
{{- end -}}
{{- with $led }}
{{ $.section }}.no-proxy: {{ $past }} would lead calls to {{ . }} past the sidecar, unsigned
{{- end -}}
{{- end -}}
{{- end -}}
{{- $taken := list -}}
{{- range $name := list "egress-port" "ingress-port" "admin-port" -}}
{{- $port := get $settings $name -}}
{{- if has $port $taken }}
{{ $.section }}.{{ $name }}: {{ $port }} is another port of the sidecar already
{{- end -}}
{{- $taken = append $taken $port -}}
{{- end -}}
{{- range $what := list "cpu" "memory" -}}
{{- $request := get $settings (printf "%s-request" $what) -}}
{{- $limit := get $settings (printf "%s-limit" $what) -}}
{{- if and (ne $request "none") (ne $limit "none") -}}
{{- if gt (include "countersign.settings.amount" $request | float64) (include "countersign.settings.amount" $limit | float64) }}
{{ $.section }}.{{ $what }}-request: {{ $request }} is more than {{ $what }}-limit, {{ $limit }}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* A quantity in thousandths. */}}
{{- define "countersign.settings.amount" -}}
{{- $unit := regexFind "[a-zA-Z]*$" . -}}
{{- $factors := dict "m" 1 "" 1000 "k" 1000000 "M" 1000000000 "G" 1000000000000 "Ki" 1024000 "Mi" 1048576000 "Gi" 1073741824000 -}}
{{- mulf (trimSuffix $unit . | float64) (get $factors $unit) -}}
{{- end }}
