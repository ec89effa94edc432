// Says how Go reads requests: encoding/json into a struct, as Go servers do, and net/url.
//
// A line on standard input is a kind (json, query, path) and the bytes in Base64; a line of JSON on standard output is
// what was read, or {"ok": false}.
package main

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"net/url"
	"os"
	"path"
	"strings"

	// Whose module carries the files of JSONTestSuite.
	_ "github.com/dpb587/inspectjson-go/inspectjson"
)

type call struct {
	Method any `json:"method"`
	ID     any `json:"id"`
	Params struct {
		Name      any             `json:"name"`
		Arguments json.RawMessage `json:"arguments"`
	} `json:"params"`
}

type arguments struct {
	Mode any `json:"mode"`
}

type told map[string]any

func readJSON(text []byte) told {
	var read call
	if json.Unmarshal(text, &read) != nil {
		return told{"ok": false}
	}
	var whole any
	var typed arguments
	if len(read.Params.Arguments) > 0 {
		if json.Unmarshal(read.Params.Arguments, &whole) != nil {
			return told{"ok": false}
		}
		// Arguments that are no object have no mode.
		_ = json.Unmarshal(read.Params.Arguments, &typed)
	}
	return told{
		"ok": true, "method": read.Method, "id": read.ID, "name": read.Params.Name, "arguments": whole, "mode": typed.Mode,
	}
}

func readQuery(text string) told {
	pairs, err := url.ParseQuery(text)
	if err != nil {
		return told{"ok": false}
	}
	return told{"ok": true, "pairs": pairs}
}

func readPath(text string) told {
	target, err := url.ParseRequestURI(text)
	if err != nil {
		return told{"ok": false}
	}
	cleaned := path.Clean(target.Path)
	if strings.HasSuffix(target.Path, "/") && cleaned != "/" {
		cleaned += "/"
	}
	return told{"ok": true, "path": cleaned}
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 64<<20)
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	for lines.Scan() {
		kind, encoded, _ := strings.Cut(lines.Text(), " ")
		text, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil {
			panic(err)
		}
		var said told
		switch kind {
		case "json":
			said = readJSON(text)
		case "query":
			said = readQuery(string(text))
		case "path":
			said = readPath(string(text))
		default:
			panic(kind)
		}
		line, err := json.Marshal(said)
		if err != nil {
			panic(err)
		}
		out.Write(append(line, '\n'))
	}
	if lines.Err() != nil {
		panic(lines.Err())
	}
}
