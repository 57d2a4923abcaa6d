{{/*
The sidecar in the pods of other charts, without a webhook: what `countersign inject` adds, piece by piece. Each takes a map
of the annotations' names without their prefix, such as .Values.countersign.sidecar; README.md tells what goes where.
They are checked by _settings.tpl. A test holds all of it against what is injected.
*/}}

{{/* Of the pod's metadata.annotations: so the injector leaves it alone. */}}
{{- define "countersign.pod.annotations" -}}
countersign.dev/status: injected
{{- end }}

{{/* The first of the pod's initContainers. */}}
{{- define "countersign.pod.initContainers" -}}
{{- $settings := include "countersign.pod.settings" . | fromJson -}}
{{- if eq $settings.sidecar "native" -}}
{{- if eq (get $settings "way-in") "redirect" }}
{{ include "countersign.pod.redirect" $settings }}
{{- end }}
{{ include "countersign.pod.sidecar" $settings }}
{{- end -}}
{{- end }}

{{/* The last of the pod's initContainers: of a classic sidecar the rules, behind which nobody is reached before it starts. */}}
{{- define "countersign.pod.lastInitContainers" -}}
{{- $settings := include "countersign.pod.settings" . | fromJson -}}
{{- if and (eq $settings.sidecar "classic") (eq (get $settings "way-in") "redirect") -}}
{{ include "countersign.pod.redirect" $settings }}
{{- end -}}
{{- end }}

{{/* The first of the pod's containers: the kubelet starts those behind it when it is ready. */}}
{{- define "countersign.pod.containers" -}}
{{- $settings := include "countersign.pod.settings" . | fromJson -}}
{{- if eq $settings.sidecar "classic" -}}
{{ include "countersign.pod.sidecar" $settings }}
{{- end -}}
{{- end }}

{{/* Of the pod's volumes. */}}
{{- define "countersign.pod.volumes" -}}
{{- $settings := include "countersign.pod.settings" . | fromJson -}}
- name: countersign-keys
  secret:
    secretName: {{ $settings.keys }}
    defaultMode: 0444
{{- if hasKey $settings "config" }}
- name: countersign-config
  configMap:
    name: {{ $settings.config }}
{{- end }}
{{- if include "countersign.pod.needsCa" $settings }}
- name: countersign-ca
  emptyDir:
    medium: Memory
    sizeLimit: 1Mi
{{- end }}
{{- if eq $settings.trust "enabled" }}
- name: countersign-trust
  emptyDir: {}
{{- end }}
{{- end }}

{{/* Of the volumeMounts of each container that calls Alipay+. */}}
{{- define "countersign.pod.volumeMounts" -}}
{{- $settings := include "countersign.pod.settings" . | fromJson -}}
{{- if eq $settings.trust "enabled" -}}
- name: countersign-trust
  mountPath: /var/run/countersign/trust
  readOnly: true
{{- end -}}
{{- end }}

{{/* Of the env of each container that calls Alipay+. */}}
{{- define "countersign.pod.env" -}}
{{- $settings := include "countersign.pod.settings" . | fromJson -}}
{{- $trust := "/var/run/countersign/trust" -}}
{{- $java := list -}}
{{- if eq $settings.trust "enabled" -}}
{{- $java = append $java (printf "-Djavax.net.ssl.trustStore=%s/truststore.p12 -Djavax.net.ssl.trustStorePassword=changeit -Djavax.net.ssl.trustStoreType=PKCS12" $trust) }}
- name: SSL_CERT_FILE
  value: {{ $trust }}/ca-bundle.pem
- name: REQUESTS_CA_BUNDLE
  value: {{ $trust }}/ca-bundle.pem
- name: CURL_CA_BUNDLE
  value: {{ $trust }}/ca-bundle.pem
- name: NODE_EXTRA_CA_CERTS
  value: {{ $trust }}/ca.pem
- name: DENO_CERT
  value: {{ $trust }}/ca.pem
{{- end }}
{{- if eq (get $settings "way-in") "env" -}}
{{- $port := get $settings "egress-port" -}}
{{- $past := list "localhost" "127.0.0.1" "::1" ".svc" ".cluster.local" "kubernetes.default" "$(KUBERNETES_SERVICE_HOST)" -}}
{{- $javaPast := list "localhost" "127.*" "[::1]" "*.svc" "*.cluster.local" "kubernetes.default" -}}
{{- range $one := splitList "," (get $settings "no-proxy") -}}
{{- $one = trim $one | lower -}}
{{- if regexMatch (include "countersign.value.ipv4" .) $one -}}
{{- $one = printf "%s/32" $one -}}
{{- else if and (contains ":" $one) (not (contains "/" $one)) -}}
{{- $one = printf "%s/128" $one -}}
{{- end -}}
{{- /* Java knows names, addresses, and networks that end at a dot. */ -}}
{{- if contains "/" $one -}}
{{- $past = append $past $one -}}
{{- $address := splitList "/" $one | first -}}
{{- $size := splitList "/" $one | last | int -}}
{{- if contains ":" $one -}}
{{- if eq $size 128 -}}
{{- $javaPast = append $javaPast (printf "[%s]" $address) -}}
{{- end -}}
{{- else if eq $size 32 -}}
{{- $javaPast = append $javaPast $address -}}
{{- else if has $size (list 8 16 24) -}}
{{- $javaPast = append $javaPast (printf "%s.*" (slice (splitList "." $address) 0 (div $size 8 | int) | join ".")) -}}
{{- end -}}
{{- else if hasPrefix "." $one -}}
{{- $past = append $past $one -}}
{{- $javaPast = append $javaPast (printf "*%s" $one) -}}
{{- else if $one -}}
{{- $past = append $past $one -}}
{{- $javaPast = concat $javaPast (list $one (printf "*.%s" $one)) -}}
{{- end -}}
{{- end -}}
{{- $java = append $java (printf "-Dhttp.proxyHost=127.0.0.1 -Dhttp.proxyPort=%s -Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort=%s -Dhttp.nonProxyHosts=%s" $port $port ($javaPast | join "|")) -}}
{{- range $name := list "HTTP_PROXY" "http_proxy" "HTTPS_PROXY" "https_proxy" }}
- name: {{ $name }}
  value: http://127.0.0.1:{{ $port }}
{{- end }}
{{- range $name := list "NO_PROXY" "no_proxy" }}
- name: {{ $name }}
  value: {{ $past | join "," | quote }}
{{- end }}
{{- end }}
{{- with $java }}
- name: JAVA_TOOL_OPTIONS
  value: {{ join " " . | quote }}
{{- end }}
{{- end }}

{{/* Of the pod's hostAliases. */}}
{{- define "countersign.pod.hostAliases" -}}
{{- $settings := include "countersign.pod.settings" . | fromJson -}}
{{- if eq (get $settings "way-in") "hostAliases" -}}
- ip: 127.0.0.1
  hostnames:
    {{- range splitList "," $settings.hosts }}
    - {{ trim . }}
    {{- end }}
{{- end -}}
{{- end }}

{{/* Of the pod's securityContext: everybody in the pod may listen on 80 and 443. */}}
{{- define "countersign.pod.securityContext" -}}
{{- $settings := include "countersign.pod.settings" . | fromJson -}}
{{- if eq (get $settings "way-in") "hostAliases" -}}
sysctls:
  - name: net.ipv4.ip_unprivileged_port_start
    value: "0"
{{- end -}}
{{- end }}
