import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.SelectionKey;
import java.nio.channels.Selector;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;

/** {@code Idle PORT}: a selector that echoes what comes by its connections, and closes none by itself. */
public final class Idle {
    private static final List<SocketChannel> CONNECTIONS = new CopyOnWriteArrayList<>();

    public static void main(String[] args) throws Exception {
        Selector selector = Selector.open();
        ServerSocketChannel door = ServerSocketChannel.open();
        door.bind(new InetSocketAddress(InetAddress.getLoopbackAddress(), Integer.parseInt(args[0])));
        door.configureBlocking(false);
        door.register(selector, SelectionKey.OP_ACCEPT);
        Thread loop = new Thread(() -> Life.step("loop", () -> echo(selector, door)), "loop");
        loop.setDaemon(true);
        loop.start();
        Life.ready();
        String heard = "";
        while (!heard.equals("end")) {
            String before = heard;
            Life.eventually("a word", () -> !Life.hear().equals(before));
            heard = Life.hear();
            if (heard.equals("closed")) {
                Life.eventually("closed", () -> CONNECTIONS.size() >= 2 && !CONNECTIONS.get(0).isOpen());
                Life.check(!CONNECTIONS.get(0).isOpen(), "the connection of before is open");
                Life.check(CONNECTIONS.get(CONNECTIONS.size() - 1).isOpen(), "the new one is closed");
                Life.check(loop.isAlive() && door.isOpen(), "the loop has ended");
                System.out.println("closed");
            }
        }
        Life.verdict();
    }

    private static void echo(Selector selector, ServerSocketChannel door) throws IOException {
        ByteBuffer buffer = ByteBuffer.allocate(1024);
        while (true) {
            selector.select();
            for (SelectionKey key : selector.selectedKeys()) {
                if (!key.isValid()) {
                    continue;
                }
                if (key.isAcceptable()) {
                    SocketChannel connection = door.accept();
                    if (connection != null) {
                        connection.configureBlocking(false);
                        connection.register(selector, SelectionKey.OP_READ);
                        CONNECTIONS.add(connection);
                    }
                } else if (key.isReadable()) {
                    SocketChannel connection = (SocketChannel) key.channel();
                    buffer.clear();
                    if (connection.read(buffer) < 0) {
                        connection.close();
                    } else {
                        connection.write(buffer.flip());
                    }
                }
            }
            selector.selectedKeys().clear();
        }
    }
}
