"""The page that a person sees who opens the OTA address in a browser. Pure."""

from html import escape
from typing import Final

_PAGE: Final = """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>XiaoZhi: OTA</title>
<style>
body{{font:16px/1.6 system-ui,sans-serif;max-width:40em;margin:2em auto;padding:0 1em;color:#222;background:#fff}}
code{{display:inline-block;padding:.3em .6em;background:#eef;border-radius:.3em;word-break:break-all;user-select:all}}
hr{{border:0;border-top:1px solid #ddd;margin:2em 0}}
@media(prefers-color-scheme:dark){{body{{color:#ddd;background:#111}}code{{background:#224}}}}
</style></head><body>
<h1>小智服务器 · XiaoZhi server</h1>
<p>服务器正在运行，这里是给设备用的 OTA 地址。</p>
<ol>
<li>让设备进入配网模式，用手机连接它的热点（名字以 Xiaozhi 开头），打开 http://192.168.4.1</li>
<li>在“高级选项”里，把 OTA 地址改成：<br><code>{ota}</code></li>
<li>保存，连接 Wi-Fi，设备重启后就会连接本服务器。{code_zh}</li>
</ol>
<hr>
<p>The server is running, and this is the OTA address that devices ask.</p>
<ol>
<li>Put the device into Wi-Fi setup, join its hotspot (its name begins with Xiaozhi) and open http://192.168.4.1</li>
<li>Under advanced options, set the OTA address (OTA URL) to:<br><code>{ota}</code></li>
<li>Save and join your Wi-Fi. After a restart the device connects to this server. {code_en}</li>
</ol>
<hr>
<p>WebSocket: <code>{websocket}</code></p>
</body></html>
"""


def page(ota_url: str, websocket_url: str, *, needs_code: bool) -> str:
    """What to type into a device, in Chinese and English; needs nothing from elsewhere.

    Args:
        ota_url: the address for devices, as the reader reaches this server.
        websocket_url: where devices will connect.
        needs_code: new devices speak a code that has to be entered.
    """
    return _PAGE.format(
        ota=escape(ota_url),
        websocket=escape(websocket_url),
        code_zh="设备会读出一个六位验证码，请在控制台输入它。" if needs_code else "",
        code_en="It then speaks a code of six digits: enter it on the console." if needs_code else "",
    )
