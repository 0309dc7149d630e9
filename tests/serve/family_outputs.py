"""What models of other families than Qwen write, and what it is: more cases of the parser's tests."""

from groschen.serve.forms import form as forms
from serve.model_outputs import (
    CALL,
    CALL_END,
    CALLS,
    CALLS_END,
    CITY,
    CODER,
    HERMES,
    LENGTH,
    ONE,
    REASONING,
    SEP,
    TIME,
    V3,
    V3_1,
    V3_TIME,
    WEATHER,
    Case,
    coder,
    deepseek,
    function_gemma,
    gemma,
    gemma_4,
    llama,
    mistral,
)

CODER_CASES = {
    "one call": coder(CODER, WEATHER),
    "the opening tag is missing": coder(CODER.removeprefix("<tool_call>\n"), WEATHER),
    "no parameters": coder("<tool_call>\n<function=time>\n</function>\n</tool_call>", TIME),
    "two calls": coder(f"{CODER}\n{CODER}", WEATHER, WEATHER),
    "text before": coder(f"I look.\n\n{CODER}", WEATHER, content="I look.\n\n"),
    "types by the schema": coder(
        '<tool_call><function=write><parameter=path>7</parameter><parameter=lines>["a"]</parameter>'
        "<parameter=mode>null</parameter><parameter=flag>True</parameter><parameter=ratio>0.5</parameter>"
        '<parameter=inner>{"x": 1}</parameter></function></tool_call>',
        (
            "write",
            '{"path": "7", "lines": ["a"], "mode": null, "flag": true, "ratio": 0.5, "inner": {"x": 1}}',
        ),
    ),
    "a value of another type stays text": coder(
        "<tool_call><function=weather><parameter=days>soon</parameter></function></tool_call>",
        ("weather", '{"days": "soon"}'),
    ),
    "a value over lines": coder(
        "<tool_call><function=weather><parameter=city>\n\na <b>\n c\n\n</parameter></function></tool_call>",
        ("weather", '{"city": "\\na <b>\\n c\\n"}'),
    ),
    "JSON instead of parameters": coder('<function=weather>{"city": "Köln"}</function>', WEATHER),
    "JSON in the wrapper": coder(ONE, WEATHER),
    "an unknown name": coder(text := CODER.replace("weather", "nope"), content=text),
    "a key twice": coder(text := CODER.replace(CITY, CITY * 2), content=text),
    "text between parameters": coder(text := CODER.replace(CITY, f"x{CITY}"), content=text),
    "cut in a value": coder(text := CODER[:50], content=text, reason=LENGTH, end="length"),
    "cut in the closing tag": coder(CODER[:-4], WEATHER, reason=LENGTH, end="length"),
}

LLAMA = {
    "bare": llama('{"name": "weather", "parameters": {"city": "Köln"}}', WEATHER),
    "bare after newlines": llama('\n\n{"name": "weather", "parameters": {"city": "Köln"}}', WEATHER),
    "bare with a type": llama('{"type": "function", "name": "time", "parameters": {}}', TIME),
    "with the tag": llama('<|python_tag|>{"name": "weather", "parameters": {"city": "Köln"}}', WEATHER),
    "several": llama(
        '<|python_tag|>{"name": "time", "parameters": {}}; {"name": "time", "parameters": {}}', TIME, TIME
    ),
    "several bare": llama(
        '{"name": "time", "parameters": {}};{"name": "time", "parameters": {}}', TIME, TIME
    ),
    "in a function tag": llama('<function=weather>{"city": "Köln"}</function>', WEATHER),
    "two function tags": llama("<function=time>{}</function>\n<function=time>{}</function>", TIME, TIME),
    "JSON that is an answer": llama(text := '{"name": "Ada", "age": 36}', content=text),
    "JSON that is another answer": llama(text := ' {"city": "Köln"}', content=text),
    "a tool's definition": llama(
        text := '{"name": "time", "description": "x", "parameters": {}}', content=text
    ),
    "an unknown name": llama(text := '{"name": "nope", "parameters": {}}', content=text),
    "JSON after content": llama(text := 'So: {"name": "time", "parameters": {}}', content=text),
    "bare without tools": llama(text := '{"name": "time", "parameters": {}}', content=text, has_tools=False),
    "cut in the name": llama(text := '{"name": "ti', content=text, reason=LENGTH, end="length"),
    "python code": llama(text := "<|python_tag|>print(1)", content=text),
    "a call, then text": llama(
        '{"name": "time", "parameters": {}} is what I call', TIME, content=" is what I call"
    ),
}

DEEPSEEK = {
    "one call of V3": deepseek(f"{CALLS}{V3}{CALLS_END}", WEATHER),
    "two calls of V3": deepseek(f"{CALLS}{V3}\n{V3_TIME}{CALLS_END}", WEATHER, TIME),
    "one call of V3.1": deepseek(f"{CALLS}{V3_1}{CALLS_END}", WEATHER),
    "two calls of V3.1": deepseek(f"{CALLS}{V3_1}{V3_1}{CALLS_END}", WEATHER, WEATHER),
    "after a thought": deepseek(
        f"a\n</think>\n\n{CALLS}{V3}{CALLS_END}", WEATHER, reasoning="a", in_reasoning=True
    ),
    "after text": deepseek(f"I look.{CALLS}{V3_1}{CALLS_END}", WEATHER, content="I look."),
    "without the outer markers": deepseek(V3, WEATHER),
    "the end is missing": deepseek(f"{CALLS}{V3}", WEATHER),
    "cut in the last marker": deepseek(f"{CALLS}{V3}{CALLS_END[:-3]}", WEATHER, reason=LENGTH, end="length"),
    "cut in the fence": deepseek(
        f"{CALLS}{V3}".removesuffix(f"``{CALL_END}"), WEATHER, reason=LENGTH, end="length"
    ),
    "an unknown name": deepseek(text := f"{CALLS}{V3_1}{CALLS_END}".replace("weather", "nope"), content=text),
    "known, then unknown": deepseek(
        f"{CALLS}{V3_1}{V3_1.replace('weather', 'nope')}{CALLS_END}",
        WEATHER,
        content=f"{V3_1.replace('weather', 'nope')}{CALLS_END}",
    ),
    "broken arguments": deepseek(
        f"{CALLS}{V3_1.replace(': ', ' ')}{V3}{CALLS_END}", ("weather", '{"city" "Köln"}'), WEATHER
    ),
    "cut in the arguments": deepseek(
        f'{CALLS}{CALL}weather{SEP}{{"city": "Kö', ("weather", '{"city": "Kö'), reason=LENGTH, end="length"
    ),
}

MISTRAL = {
    "a list": mistral('[TOOL_CALLS][{"name": "weather", "arguments": {"city": "Köln"}}]', WEATHER),
    "with an id": mistral('[TOOL_CALLS] [{"name": "time", "arguments": {}, "id": "abcdefghi"}]', TIME),
    "two in a list": mistral(
        '[TOOL_CALLS][{"name": "time", "arguments": {}}, {"name": "time", "arguments": {}}]', TIME, TIME
    ),
    "text before": mistral('Well.[TOOL_CALLS][{"name": "time", "arguments": {}}]', TIME, content="Well."),
    "v11": mistral('[TOOL_CALLS]weather[ARGS]{"city": "Köln"}', WEATHER),
    "v11 with an id": mistral('[TOOL_CALLS]weather[CALL_ID]abcdefghi[ARGS]{"city": "Köln"}', WEATHER),
    "v11 without its marker": mistral('[TOOL_CALLS]weather{"city": "Köln"}', WEATHER),
    "two of v11": mistral("[TOOL_CALLS]time[ARGS]{}[TOOL_CALLS]time[ARGS]{}", TIME, TIME),
    "the list is cut": mistral(
        '[TOOL_CALLS][{"name": "time", "arguments": {}}, {"na',
        TIME,
        content=', {"na',
        reason=LENGTH,
        end="length",
    ),
    "the bracket is missing": mistral('[TOOL_CALLS][{"name": "time", "arguments": {}}', TIME),
    "an unknown name": mistral(text := "[TOOL_CALLS]nope[ARGS]{}", content=text),
    "broken, then whole": mistral("[TOOL_CALLS]time[ARGS]{]}[TOOL_CALLS]time[ARGS]{}", ("time", "{]}"), TIME),
}

GEMMA = {
    "a fence": gemma('```tool_code\nweather(city="Köln")\n```', WEATHER),
    "the other fence": gemma("```tool_call\nweather(city='Köln')\n```", WEATHER),
    "printed": gemma('```tool_code\nprint(default_api.weather(city="Köln"))\n```', WEATHER),
    "two lines": gemma('```tool_code\nweather(city="Köln")\ntime()\n```', WEATHER, TIME),
    "a list": gemma('```tool_code\n[weather(city="Köln"), time()]\n```', WEATHER, TIME),
    "text around": gemma("```tool_code\ntime()\n```\nNow we wait.", TIME, content="\nNow we wait."),
    "all kinds of values": gemma(
        "```tool_code\nweather(a=[1, -2.5, 1e3], b={'k': None, \"l\": (True, False)}, "
        "c='it\\'s \\u00e4\\n', d='''x\ny''',)\n```",
        (
            "weather",
            '{"a": [1, -2.5, 1e3], "b": {"k": null, "l": [true, false]}, "c": "it\'s ä\\n", "d": "x\\ny"}',
        ),
    ),
    "a fence in a string": gemma(
        "```tool_code\nwrite(path='''a\n```\nb''')\n```", ("write", '{"path": "a\\n```\\nb"}')
    ),
    "an expression": gemma(text := "```tool_code\nweather(city=name)\n```", content=text),
    "without a keyword": gemma(text := "```tool_code\nweather('Köln')\n```", content=text),
    "an unknown name": gemma(text := "```tool_code\nnope()\n```", content=text),
    "one known, one not": gemma(text := "```tool_code\ntime()\nnope()\n```", content=text),
    "another fence": gemma(text := "```python\ntime()\n```", content=text),
    "a hundred fences in a string": gemma(
        text := f"```tool_code\nwrite(path='''{'```' * 100}''')\n```", content=text
    ),
    "not closed": gemma(text := "```tool_code\ntime()\n", content=text),
    "escape strings": function_gemma(
        "<start_function_call>call:weather{city:<escape>Köln<escape>}<end_function_call>", WEATHER
    ),
    "no arguments": function_gemma("<start_function_call>call:time{}<end_function_call>", TIME),
    "two escape calls": function_gemma(
        "<start_function_call>call:time{}<end_function_call><start_function_call>call:time{}<end_function_call>",
        TIME,
        TIME,
    ),
    "nested escapes": function_gemma(
        '<start_function_call>call:write{flag:true,lines:[<escape>a"{b<escape>,<escape><escape>],'
        "inner:{x:1},path:<escape>a\\n\nb<escape>}<end_function_call>",
        ("write", '{"flag": true, "lines": ["a\\"{b", ""], "inner": {"x": 1}, "path": "a\\\\n\\nb"}'),
    ),
    "the end marker in a string": function_gemma(
        "<start_function_call>call:weather{city:<escape><end_function_call><escape>}<end_function_call>",
        ("weather", '{"city": "<end_function_call>"}'),
    ),
    "an escape call cut": function_gemma(
        text := "<start_function_call>call:weather{city:<escape>K", content=text, reason=LENGTH, end="length"
    ),
    "an escape call of nothing": function_gemma(
        text := "<start_function_call>weather{}<end_function_call>", content=text
    ),
    "gemma 4": gemma_4('<|tool_call>call:weather{city:<|"|>Köln<|"|>}<tool_call|>', WEATHER),
    "LFM2": Case(
        form=forms.LISTED,
        text='<|tool_call_start|>[weather(city="Köln")]<|tool_call_end|>I look.',
        calls=(WEATHER,),
        content="I look.",
        end="tool_calls",
    ),
}

GROUPS = {
    "reasoning": REASONING,
    "hermes": HERMES,
    "qwen-coder": CODER_CASES,
    "llama": LLAMA,
    "deepseek": DEEPSEEK,
    "mistral": MISTRAL,
    "gemma": GEMMA,
}
CASES = {f"{group}: {name}": case for group, cases in GROUPS.items() for name, case in cases.items()}
