module holdpoint.dev/differentials

go 1.24.2

require github.com/dpb587/inspectjson-go v0.0.0-20251203142639-90f1442149fb

require (
	github.com/apparentlymart/go-textseg/v16 v16.0.0 // indirect
	github.com/dpb587/cursorio-go v0.0.0-20250717044249-e1d8c928b30d // indirect
)
