"""Accounts of services that both recognise and speak: what their tables have in common."""

from pydantic import Field, SecretStr

from xiaozhi.settings.engines import EngineSettings
from xiaozhi.settings.pasted import ApiKey, KeyedSection


class IflytekAccount(EngineSettings, KeyedSection):
    """An application of iFlytek's."""

    app_id: str = Field("", max_length=100)
    """From the console of the application (https://console.xfyun.cn; online speech synthesis, 语音听写大模型): from
    environment variables, or written down here. The clock of this machine must be right within five minutes.
    zh: 应用的 APPID，在 https://console.xfyun.cn 的“在线语音合成”或“语音听写大模型”里；可以写在这里，也可以用环境变量。
    本机时钟的误差不能超过五分钟。"""
    app_id_env: str = "IFLYTEK_APP_ID"
    """zh: 存放 APPID 的环境变量名。"""
    api_key: ApiKey = SecretStr("")
    """zh: 应用的 APIKey。"""
    api_key_env: str = "IFLYTEK_API_KEY"
    """zh: 存放 APIKey 的环境变量名。"""
    api_secret: ApiKey = SecretStr("")
    """zh: 应用的 APISecret。"""
    api_secret_env: str = "IFLYTEK_API_SECRET"
    """zh: 存放 APISecret 的环境变量名。"""


class TencentAccount(EngineSettings):
    """An account of Tencent Cloud."""

    app_id: str = Field("", pattern=r"^[0-9]{0,20}$")
    """From https://console.cloud.tencent.com/cam/capi; realtime recognition or speech synthesis has to be enabled for
    the account. From environment variables, or written down here. The clock of this machine must be right.
    zh: 账号的 APPID，在 https://console.cloud.tencent.com/cam/capi；账号要先开通实时语音识别或语音合成。可以写在这里，也可
    以用环境变量。本机时钟要准。"""
    app_id_env: str = "TENCENT_APP_ID"
    """zh: 存放 APPID 的环境变量名。"""
    secret_id: ApiKey = SecretStr("")
    """zh: 账号的 SecretId。"""
    secret_id_env: str = "TENCENT_SECRET_ID"
    """zh: 存放 SecretId 的环境变量名。"""
    secret_key: ApiKey = SecretStr("")
    """zh: 账号的 SecretKey。"""
    secret_key_env: str = "TENCENT_SECRET_KEY"
    """zh: 存放 SecretKey 的环境变量名。"""
