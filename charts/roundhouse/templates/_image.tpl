{{/* The image of one of the two programs: dict "root" $ "program" "roundhouse-agent". */}}
{{- define "roundhouse.image" -}}
{{ .root.Values.image.repository }}/{{ .program }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}
{{- end -}}
