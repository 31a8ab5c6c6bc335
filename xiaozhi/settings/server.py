"""`[server]`, `[auth]`, `[ota]`: where devices connect, who may, and what they are told."""

from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, SecretStr, field_validator, model_validator

from xiaozhi.settings.origins import as_sent
from xiaozhi.settings.section import Networks, NextConnection, NextTurn, Port, Section


class ServerSettings(Section, applies="restart"):
    """Server: where devices connect and what one of them may cost.

    zh: 服务器：设备连接到哪里，每台设备最多占用多少资源。
    """

    host: str = "0.0.0.0"
    """Address and port to listen on. "0.0.0.0" is every network of this machine, "127.0.0.1" only this machine itself.
    Port 0 takes a free one (tests).
    zh: 监听的地址。“0.0.0.0”表示本机的所有网络，“127.0.0.1”表示只有本机能访问。"""
    port: Port = 8000
    """zh: 监听的端口。填 0 则自动选一个空闲端口（测试用）。"""
    public_url: str = ""
    """How devices reach this server, when that is not this machine's own address: behind a reverse proxy, a tunnel, in
    a container. For example "https://xiaozhi.example.org". It goes into the OTA reply; https becomes wss for devices.
    The console is opened by this name as well; it answers to no name that is not here, in origins, or this machine's
    own. Devices know only the public certificate authorities, no self-signed certificates. Empty: found out by itself.
    zh: 设备从外面访问本服务器用的地址，例如“https://xiaozhi.example.org”。放在反向代理、内网穿透或容器后面时需要填
    写。它会写进 OTA 应答，https 对应设备的 wss。控制台也可以用这个名字打开；除了本机的地址和名字、这里和 origins 里
    的名字，它不认别的。设备只认公共证书机构签发的证书，不认自签证书。留空则自动判断。"""
    data_dir: Path = Path("data")
    """Where the server keeps what must survive a restart: the key that signs device tokens, caches.
    zh: 保存重启后仍要保留的内容：给设备令牌签名的密钥、数据库和缓存。"""
    max_devices: NextConnection[int] = Field(200, ge=1, le=100_000)
    """Devices connected at the same time; the next one is refused with HTTP 503. Each costs about 1 MB of memory and
    one file descriptor. What the box can answer at once is decided by [asr] workers.
    zh: 同时在线的设备数，超出的会收到 HTTP 503。每台大约占 1 MB 内存和一个文件描述符。同一时刻能回答多少台，取决于
    [asr] workers。"""
    hello_timeout_s: NextTurn[float] = Field(15.0, ge=1, le=120)
    """A client that has not said hello this long after it connected is closed.
    zh: 连接后这么久（秒）还没有发 hello，就断开。"""
    idle_close_s: NextTurn[float] = Field(120.0, ge=5, le=86_400)
    """A device that has neither sent speech nor heard a reply for this long is disconnected; it comes back when it is
    spoken to. Lower saves memory, higher keeps long pauses inside one conversation.
    zh: 设备既没有说话、也没有听到回答，超过这么久（秒）就断开；被唤醒时会重新连上。调小省内存，调大可以让较长的停顿
    仍算同一次对话。"""
    keepalive_s: NextTurn[float] = Field(50.0, ge=5, le=100)
    """A small message goes to a silent device this often. Devices give up a connection after 120 s without any.
    zh: 每隔这么久（秒）给安静的设备发一条小消息。设备 120 秒收不到任何消息就会放弃连接。"""
    reload: bool = True
    """Look once a second whether this file has changed, and take over what can be taken over while serving (`xiaozhi
    check --applies` lists it). SIGHUP does so at once, also where this is false. A file with a mistake changes nothing.
    zh: 每秒检查一次设置文件有没有改动，能在运行中生效的立即生效（`xiaozhi check --applies` 会列出来）。关闭后仍可用
    SIGHUP 立即重新读取。文件有错时什么都不会改变。"""
    drain_s: NextTurn[float] = Field(20.0, ge=0, le=600)
    """On stop (SIGTERM) what is being said is still answered, and replies end; after this time they are cut. Devices
    that do nothing are hung up one after the other, within two seconds.
    zh: 停止服务时（SIGTERM），正在说的回答最多还能说这么久（秒），之后会被切断。"""
    send_timeout_s: NextConnection[float] = Field(10.0, ge=1, le=120)
    """A device whose network takes nothing for this long is given up: frozen, out of range, switched off. One that
    nothing is sent to is found out by the next keepalive.
    zh: 设备的网络这么久（秒）收不下任何数据，就放弃这个连接。"""
    max_message_bytes: NextConnection[int] = Field(131_072, ge=4096, le=1_048_576)
    """Largest message a device may send. zh: 设备一条消息的最大字节数。"""
    timezone: str = ""
    """Time zone of the devices' clocks, such as "Asia/Shanghai". Empty: that of this machine. In a container, set it.
    zh: 设备时钟所在的时区，例如“Asia/Shanghai”。留空用本机时区；在容器里请填写。"""
    trusted_proxies: Networks = ()
    """Reverse proxies that may say for whom they ask (X-Forwarded-For): addresses or networks, such as ["127.0.0.1"] or
    ["172.16.0.0/12"]. Without it all devices behind a proxy count as one address.
    zh: 可信的反向代理，它们可以用 X-Forwarded-For 说明真实来源：填地址或网段，例如“127.0.0.1”“172.16.0.0/12”。不填
    时，代理后面的所有设备算作同一个地址。"""
    origins: NextConnection[tuple[str, ...]] = ()
    """Web pages that may do what devices do: ask the OTA address for a token, connect, send pictures. A browser in the
    house runs the pages of strangers, too. Devices and other programs are no pages and need nothing here. Nor do the
    console and this server's own pages (those of public_url; without it, of an IP address, a .local name or this
    machine's name), and pages of localhost in a browser on this machine. Others are named, such as
    ["https://app.example.com"]. "null" is what files and sandboxed frames say, "file://" some clients on
    microcontrollers. "*" is every page that has an address.
    zh: 哪些网页可以像设备一样使用本服务器（从 OTA 地址领令牌、连接、传照片）。家里的浏览器也会打开陌生人的网页，所以
    默认只有这些可以：控制台、本服务器自己的网页（设了 public_url 就是那个地址的，没设则是 IP 地址、.local 名字或本机
    名的），以及在本机浏览器里打开的 localhost 网页。其他网页要写在这里，例如“https://app.example.com”；“null”是本地
    文件和沙盒框架报的来源，“file://”是某些单片机上的客户端报的；“*”表示所有有地址的网页。设备和其他不是网页的程序不
    受影响。"""
    requests_per_minute: NextTurn[int] = Field(600, ge=0, le=1_000_000)
    """What one address may ask for in a minute: OTA requests and as many new connections; above, HTTP 429. A whole
    house is one address. This machine itself is not counted; 0 is no limit.
    zh: 一个地址每分钟最多的 OTA 请求数，新建连接数也按这个上限计算；超出返回 HTTP 429。一家人通常共用一个地址。本机
    不计。0 表示不限。"""
    tls_cert: Path | None = Field(None, examples=["/etc/letsencrypt/live/xiaozhi.example.org/fullchain.pem"])
    """Encryption: files in PEM form, the certificate with its chain (fullchain.pem) and its private key. Devices trust
    the public authorities (Let's Encrypt and the like) only; 4G boards often need it. Renewed files are taken without a
    restart. With tls_port 0 the server speaks TLS alone, on port; another tls_port is served besides it.
    zh: 加密用的证书文件（PEM，含完整证书链 fullchain.pem）。设备只信任公共证书机构（如 Let's Encrypt），4G 板子往往
    必须用它。续期后的文件会自动换上，不用重启。"""
    tls_key: Path | None = Field(None, examples=["/etc/letsencrypt/live/xiaozhi.example.org/privkey.pem"])
    """zh: 证书对应的私钥文件（PEM）。"""
    tls_port: Port = 0
    """zh: TLS 端口。0 表示主端口只走 TLS；填别的端口，则在主端口之外另开一个 TLS 端口。"""

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name or "UTC")
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError('must be a time zone such as "Asia/Shanghai", or empty') from None
        return name

    @field_validator("origins")
    @classmethod
    def _pages(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(as_sent(origin) for origin in origins)

    @model_validator(mode="after")
    def _certificate(self) -> "ServerSettings":
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key must be given together")
        if self.tls_port and self.tls_cert is None:
            raise ValueError("tls_port needs tls_cert and tls_key")
        if self.tls_port and self.tls_port == self.port:
            raise ValueError("tls_port must not be the same as port; leave it at 0 to serve TLS on port alone")
        return self


class AuthSettings(Section, applies="restart"):
    """Who may connect: devices and their tokens. zh: 设备接入：谁可以连接。"""

    mode: Literal["open", "token", "activate"] = "token"
    """In the mode "token" a device gets its token from the OTA address and shows it when it connects; whoever does not
    know the OTA address of this server stays out. The first client that comes as a device is the only one that may be
    it: a board that was erased has a new Client-Id, shows a code, and is let in on the console or with `xiaozhi devices
    release`. "open": everybody who reaches the port may talk, under any name. Fine at home, not on the internet.
    "activate": as "token", and a new device first speaks and shows a code of six digits, until its owner binds it on
    the console or with `xiaozhi devices bind CODE`. For servers on the internet.
    zh: “token”：设备从 OTA 地址领取令牌，连接时出示；不知道 OTA 地址的进不来。每台设备只认第一次来的那个客户端：擦除
    重刷的板子会换一个 Client-Id，它会显示验证码，要在控制台或用 `xiaozhi devices release` 放行。“open”：能访问端口的
    都能用，想叫什么名字都行，适合家里，不适合公网。“activate”：和 token 一样，但新设备会先念出并显示六位验证码，要由
    主人在控制台或用 `xiaozhi devices bind 验证码` 绑定，适合公网。"""
    token_ttl_days: float = Field(30.0, gt=0, le=3650)
    """Tokens from the OTA address hold this many days; devices fetch a new one at every boot.
    zh: 令牌的有效天数；设备每次开机都会领新的。"""
    rotate_days: float = Field(90.0, ge=0, le=3650)
    """The key that signs tokens is replaced by a new one after this many days; tokens of the old one hold until they
    expire. `xiaozhi tokens rotate` does it at once, and with --forget makes every token worthless that was given
    before; 0 is never.
    zh: 签名密钥用满这么多天后自动更换；旧密钥签的令牌到期前仍然有效。`xiaozhi tokens rotate` 立即更换，加 --forget
    则让之前的令牌全部作废。0 表示从不更换。"""
    tokens: tuple[SecretStr, ...] = ()
    """Further tokens that are always accepted, for clients that are configured by hand, also those that have another
    Client-Id each time. Who has one may be any device. Keep them long and random.
    zh: 另外一直有效的令牌，给手工配置的客户端用，每次 Client-Id 都不同的客户端也可以用。持有它就能当任何设备，请用又
    长又随机的内容。"""
    new_devices_per_hour: int = Field(100, ge=0, le=100_000)
    """Devices that were never seen before: so many may come in an hour from one address, and ten times as many from all
    addresses together. Devices that are known are not counted; 0 sets no limit.
    zh: 从没见过的新设备：同一个地址每小时最多来这么多台，所有地址合计最多十倍。见过的设备不计。0 到 100000；0 表示不
    限。"""
    allow: tuple[str, ...] = ()
    """Device ids (MAC addresses). Where allow is not empty, only these and those that the console allowed may connect;
    in the mode "activate" they need no code. A device in block may never connect.
    zh: 设备 ID（MAC 地址）白名单。不为空时，只有名单里的和在控制台上允许的设备能连接；在 activate 模式下它们不需要验
    证码。"""
    block: tuple[str, ...] = ()
    """zh: 设备 ID（MAC 地址）黑名单，名单里的设备永远不能连接。"""


class OtaSettings(Section, applies="restart"):
    """Device updates: what devices are told when they boot. zh: 设备升级：设备开机时得到的消息。"""

    firmware_dir: Path | None = Field(None, examples=["firmware"])
    """Firmware that devices install by themselves: a folder with one folder for each board, named as the board names
    itself, and in it one file for each version: bread-compact-wifi/2.4.2.bin. A device gets the highest version if that
    is newer than its own, and the file is made for its chip and really holds that version. Not set: devices keep what
    they have.
    zh: 供设备自动升级的固件文件夹：每种开发板一个子文件夹（用板子自报的名字），里面每个版本一个文件，例如
    bread-compact-wifi/2.4.2.bin。只有版本更新、芯片相符、文件里确实是这个版本时才会发给设备。不填则设备保持现有固
    件。"""
    rollout_percent: int = Field(100, ge=0, le=100)
    """Share of the devices that are offered it, always the same ones: 5 for a trial, 100 for all.
    zh: 给多大比例的设备升级，每次都是同一批：5 用来试，100 是全部。"""
