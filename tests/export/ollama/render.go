// What Ollama sends to a model: a Modelfile's TEMPLATE run by Go's own text/template, on conversations read from stdin.
//
// Only standard library. It follows what Ollama does around the template: unprintable characters of a Modelfile are
// dropped, SYSTEM starts a conversation that has no system message, neighbouring messages of one role become one, and
// a bare prompt is a question after the system text.
//
//	in:  {"modelfile": "...", "requests": [{"messages": [...]} or {"prompt": "...", "system": "..."}]}
//	out: ["...", ...]
package main

import (
	"encoding/json"
	"os"
	"strconv"
	"strings"
	"text/template"
)

type message struct {
	Role    string
	Content string
}

type request struct {
	Messages []message
	Prompt   string
	System   string
}

func main() {
	var in struct {
		Modelfile string
		Requests  []request
	}
	check(json.NewDecoder(os.Stdin).Decode(&in))
	source, found := value(in.Modelfile, "TEMPLATE")
	if !found {
		panic("the Modelfile has no TEMPLATE")
	}
	parsed, err := template.New("").Option("missingkey=zero").Parse(source)
	check(err)
	system, _ := value(in.Modelfile, "SYSTEM")
	texts := []string{}
	for _, asked := range in.Requests {
		texts = append(texts, render(parsed, conversation(asked, system)))
	}
	check(json.NewEncoder(os.Stdout).Encode(texts))
}

// value returns what stands between triple quotes after the word at the start of a line. It ends at the first line that
// closes the quotes, so that a quotation mark may come right before them.
func value(modelfile, word string) (string, bool) {
	start := strings.Index("\n"+modelfile, "\n"+word+` """`)
	if start < 0 {
		return "", false
	}
	rest := strings.Map(kept, modelfile[start+len(word)+1:])
	for end := range rest + "\n" {
		if end < len(rest) && rest[end] != '\n' && rest[end] != '\r' {
			continue
		}
		quoted := strings.TrimSpace(rest[:end])
		if len(quoted) >= 6 && strings.HasSuffix(quoted, `"""`) {
			return quoted[3 : len(quoted)-3], true
		}
	}
	return "", false
}

func kept(char rune) rune {
	if strconv.IsPrint(char) || strings.ContainsRune("\t\r\n", char) {
		return char
	}
	return -1
}

func conversation(asked request, system string) []message {
	messages := asked.Messages
	if messages == nil {
		messages = []message{{"user", asked.Prompt}}
		if asked.System != "" {
			system = asked.System
		}
	}
	if system != "" && (len(messages) == 0 || messages[0].Role != "system") {
		messages = append([]message{{"system", system}}, messages...)
	}
	return merged(messages)
}

func merged(messages []message) []message {
	joined := []message{}
	for _, next := range messages {
		last := len(joined) - 1
		if last >= 0 && joined[last].Role == next.Role && next.Role != "tool" {
			joined[last].Content += "\n\n" + next.Content
		} else {
			joined = append(joined, next)
		}
	}
	return joined
}

func render(parsed *template.Template, messages []message) string {
	system := []string{}
	for _, said := range messages {
		if said.Role == "system" {
			system = append(system, said.Content)
		}
	}
	var text strings.Builder
	check(parsed.Execute(&text, map[string]interface{}{
		"System": strings.Join(system, "\n\n"), "Messages": messages, "Response": "",
	}))
	return text.String()
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
