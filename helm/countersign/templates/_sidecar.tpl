{{/*
The two containers of Countersign in a pod, of checked settings. Used by _pod.tpl alone.
*/}}

{{/* Arguments as YAML: Kubernetes takes $(NAME) for a variable, and $$ for a dollar. */}}
{{- define "countersign.pod.arguments" -}}
{{- range . }}
- {{ replace "$" "$$" . | quote }}
{{- end }}
{{- end }}

{{/* Whether an app may speak TLS with the sidecar, whose CA must then outlive a restart of it; empty if not. */}}
{{- define "countersign.pod.needsCa" -}}
{{- if or (eq .trust "enabled") (ne (get . "way-in") "none") -}}
true
{{- end -}}
{{- end }}

{{- define "countersign.pod.sidecar" -}}
{{- $native := eq .sidecar "native" -}}
{{- $file := hasKey . "config" -}}
{{- $ingress := or $file (hasKey . "app") -}}
{{- $keys := "/etc/countersign/keys" -}}
{{- $arguments := list "run" -}}
{{- if $file -}}
{{- $arguments = append $arguments "--config=/etc/countersign/config/config.yaml" -}}
{{- else -}}
{{- $arguments = concat $arguments (list
      (printf "--client-id=%s" (get . "client-id"))
      (printf "--private-key=%s/%s" $keys (get . "private-key"))
      (printf "--alipay-public-key=%s/%s" $keys (get . "alipay-public-key"))
      (printf "--key-version=%s" (get . "key-version"))) -}}
{{- with get . "default-host" }}{{ $arguments = append $arguments (printf "--default-host=%s" .) }}{{ end -}}
{{- with .upstream }}{{ $arguments = append $arguments (printf "--upstream=%s" .) }}{{ end -}}
{{- with get . "upstream-ca" }}{{ $arguments = append $arguments (printf "--upstream-ca=%s/%s" $keys .) }}{{ end -}}
{{- with .app }}{{ $arguments = append $arguments (printf "--app=%s" (regexMatch "^[0-9]+$" . | ternary (printf "http://127.0.0.1:%s" .) .)) }}{{ end -}}
{{- end -}}
{{- $arguments = append $arguments (printf "--egress-listen=localhost:%s" (get . "egress-port")) -}}
{{- if eq (get . "way-in") "hostAliases" -}}
{{- $arguments = concat $arguments (list "--egress-listen=127.0.0.1:443" "--egress-listen=127.0.0.1:80" "--nameservers=system") -}}
{{- end -}}
{{- if eq (get . "way-in") "redirect" -}}
{{- $arguments = append $arguments "--redirect-self-check" -}}
{{- end -}}
{{- if $ingress -}}
{{- $arguments = append $arguments (printf "--ingress-listen=:%s" (get . "ingress-port")) -}}
{{- end -}}
{{- $arguments = append $arguments (printf "--admin-listen=:%s" (get . "admin-port")) -}}
{{- if include "countersign.pod.needsCa" . -}}
{{- $arguments = append $arguments "--ca-directory=/var/run/countersign/ca" -}}
{{- end -}}
{{- if eq .trust "enabled" -}}
{{- $arguments = append $arguments "--trust-directory=/var/run/countersign/trust" -}}
{{- end -}}
{{- $arguments = append $arguments (printf "--log-level=%s" (get . "log-level")) -}}
- name: countersign
  image: {{ .image }}
  imagePullPolicy: {{ get . "image-pull-policy" }}
  args:
    {{- include "countersign.pod.arguments" $arguments | trim | nindent 4 }}
  {{- if $native }}
  restartPolicy: Always
  {{- end }}
  ports:
    - name: countersign-adm
      containerPort: {{ get . "admin-port" }}
      protocol: TCP
    {{- if $ingress }}
    - name: countersign-in
      containerPort: {{ get . "ingress-port" }}
      protocol: TCP
    {{- end }}
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
    failureThreshold: 3
  livenessProbe:
    httpGet:
      path: /livez
      port: countersign-adm
    periodSeconds: 10
    failureThreshold: 3
  {{- if not $native }}
  lifecycle:
    postStart:
      exec:
        command:
          - /countersign
          - wait
          - --admin=127.0.0.1:{{ get . "admin-port" }}
  {{- end }}
  resources:
    {{- include "countersign.pod.resources" . | nindent 4 }}
  securityContext:
    runAsNonRoot: true
    runAsUser: {{ get . "run-as-user" }}
    runAsGroup: {{ get . "run-as-user" }}
    {{- include "countersign.pod.containerSecurity" . | nindent 4 }}
    capabilities:
      drop: [ALL]
  volumeMounts:
    - name: countersign-keys
      mountPath: /etc/countersign/keys
      readOnly: true
    {{- if $file }}
    - name: countersign-config
      mountPath: /etc/countersign/config
      readOnly: true
    {{- end }}
    {{- if include "countersign.pod.needsCa" . }}
    - name: countersign-ca
      mountPath: /var/run/countersign/ca
    {{- end }}
    {{- if eq .trust "enabled" }}
    - name: countersign-trust
      mountPath: /var/run/countersign/trust
    {{- end }}
{{- end }}

{{/* Sets the rules that lead the app's connections to the sidecar, whose own are exempt by its user. */}}
{{- define "countersign.pod.redirect" -}}
{{- $arguments := list "redirect" "apply"
      (printf "--to-port=%s" (get . "egress-port"))
      (printf "--exempt-uid=%s" (get . "run-as-user")) -}}
{{- range splitList "," (get . "redirect-ports") -}}
{{- $arguments = append $arguments (printf "--port=%s" (trim .)) -}}
{{- end -}}
{{- with get . "redirect-exempt-networks" -}}
{{- range splitList "," . -}}
{{- $network := trim . -}}
{{- if not (contains "/" $network) -}}
{{- $network = printf "%s/%s" $network (contains ":" $network | ternary "128" "32") -}}
{{- end -}}
{{- $arguments = append $arguments (printf "--exempt-network=%s" $network) -}}
{{- end -}}
{{- end -}}
- name: countersign-redirect
  image: {{ get . "redirect-image" }}
  imagePullPolicy: {{ get . "image-pull-policy" }}
  args:
    {{- include "countersign.pod.arguments" $arguments | trim | nindent 4 }}
  resources:
    {{- include "countersign.pod.resources" . | nindent 4 }}
  securityContext:
    runAsNonRoot: false
    runAsUser: 0
    runAsGroup: 0
    {{- include "countersign.pod.containerSecurity" . | nindent 4 }}
    capabilities:
      drop: [ALL]
      add: [NET_ADMIN]
{{- end }}

{{- define "countersign.pod.containerSecurity" -}}
readOnlyRootFilesystem: true
allowPrivilegeEscalation: false
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "countersign.pod.resources" -}}
{{- $resources := dict -}}
{{- range $kind := list "request" "limit" -}}
{{- $amounts := dict -}}
{{- range $what := list "cpu" "memory" -}}
{{- $amount := get $ (printf "%s-%s" $what $kind) -}}
{{- if ne $amount "none" -}}
{{- $_ := set $amounts $what $amount -}}
{{- end -}}
{{- end -}}
{{- if $amounts -}}
{{- $_ := set $resources (printf "%ss" $kind) $amounts -}}
{{- end -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end }}
