<?php
// What the variables of the container say.
function setting($name, $default) {
    $file = getenv("WORDPRESS_{$name}_FILE");
    if ($file !== false && $file !== '') {
        return rtrim(file_get_contents($file), "\r\n");
    }
    $value = getenv("WORDPRESS_$name");
    return $value === false || $value === '' ? $default : $value;
}

define('DB_HOST', setting('DB_HOST', 'mysql'));
define('DB_USER', setting('DB_USER', 'root'));
define('DB_PASSWORD', setting('DB_PASSWORD', ''));
define('DB_NAME', setting('DB_NAME', 'wordpress'));
define('DB_CHARSET', 'utf8mb4');
define('DB_COLLATE', '');
// Without keys of its own a container has those that follow from its password: nobody else knows them.
foreach (['AUTH_KEY', 'SECURE_AUTH_KEY', 'LOGGED_IN_KEY', 'NONCE_KEY', 'AUTH_SALT', 'SECURE_AUTH_SALT', 'LOGGED_IN_SALT', 'NONCE_SALT'] as $key) {
    define($key, setting($key, hash_hmac('sha256', $key, DB_PASSWORD . DB_HOST)));
}
$table_prefix = setting('TABLE_PREFIX', 'wp_');
define('WP_DEBUG', setting('DEBUG', '') !== '');
if (!defined('ABSPATH')) {
    define('ABSPATH', __DIR__ . '/');
}
require_once ABSPATH . 'wp-settings.php';
